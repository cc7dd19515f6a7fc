"""Exercise 2: from a budget to steps and tokens."""
import budget
import distill

from .exercise import Exercise, Mistakes

PLAN_OF_BUDGET = budget.plan  # the project's own, also after `install`


def plan(C, F_S, F_T, B, T):
    """The project's answer: (FLOPs of a step, steps, tokens)."""
    step = price(F_S, F_T, B)
    bought = PLAN_OF_BUDGET(C, step, B, T)
    return step, bought.steps, bought.tokens


def price(F_S, F_T, B):
    """FLOPs of a step: the student runs forward and backward, the teacher forward."""
    return (3 * F_S + F_T) * B


def whole_steps(C, step, B, T):
    """What C buys at the price `step`, which a mistake may have changed."""
    steps = C // step
    return step, steps, steps * B * T


def cases():
    return [({}, arguments) for arguments in (
        (1000, 10, 20, 2, 4),
        (10 ** 12, 1_234_567, 7_654_321, 32, 32),
        (10 ** 19 - 1, 3, 1, 1, 128),
        (10 ** 17, 36_271_816_704, 0, 256, 128),
        (1199, 10, 20, 2, 4))]


def install(student):
    """The student's function gives both the price of a step and the number of steps."""
    def forward(size, V, T, reads, width=None):
        return sum(flops for _, _, flops in budget.forward_flops(size, V, T, reads, width))

    def step_flops(size, V, T, B, lesson=distill.Lesson(), teacher=None):
        student_reads, teacher_reads = lesson.charged()
        F_S = forward(size, V, T, student_reads, lesson.width)
        F_T = forward(teacher, V, T, teacher_reads) if teacher_reads else 0
        step, _, _ = student(10 ** 40, F_S, F_T, B, T)
        return step

    def plan(C, flops_per_step, B, T, *last_phase):
        if last_phase or C < flops_per_step:  # the exercise has no last phase and no errors
            return PLAN_OF_BUDGET(C, flops_per_step, B, T, *last_phase)
        # Only the price of a step is known here: it is that of one sequence, read by a teacher.
        _, steps, _ = student(C, 0, flops_per_step, 1, T)
        return PLAN_OF_BUDGET(C, flops_per_step, B, T)._replace(
            steps=steps, flops_spent=steps * flops_per_step, tokens=steps * B * T)

    budget.step_flops, budget.plan = step_flops, plan


# --------------------------------------------------------------------------------------------------
# Known mistakes

mistakes = Mistakes()


@mistakes.add
def teacher_backward(C, F_S, F_T, B, T):
    """The teacher's backward pass is charged.

    Nobody trains the teacher, so it has no backward pass (assumption 6 in budget.py)."""
    return whole_steps(C, 3 * (F_S + F_T) * B, B, T)


@mistakes.add
def no_teacher(C, F_S, F_T, B, T):
    """The teacher is not charged.

    The teacher reads every batch, too. Its forward pass is what distillation costs."""
    return whole_steps(C, 3 * F_S * B, B, T)


@mistakes.add
def no_backward(C, F_S, F_T, B, T):
    """The student's backward pass is left out.

    The backward pass costs twice the forward pass (assumption 3 in budget.py)."""
    return whole_steps(C, (F_S + F_T) * B, B, T)


@mistakes.add
def backward_like_forward(C, F_S, F_T, B, T):
    """The backward pass is charged like one forward pass.

    Of Y = X W the backward pass computes two products, dX and dW. It costs twice the forward pass,
    which makes three times in all."""
    return whole_steps(C, (2 * F_S + F_T) * B, B, T)


@mistakes.add
def of_a_sequence(C, F_S, F_T, B, T):
    """A step is charged for one sequence only.

    A step reads B sequences."""
    return whole_steps(C, 3 * F_S + F_T, B, T)


@mistakes.add
def rounded_up(C, F_S, F_T, B, T):
    """The steps are rounded up, and so cost more than the budget.

    A run never spends more than C, so the fraction of a step is cut off."""
    step = price(F_S, F_T, B)
    steps = -(-C // step)
    return step, steps, steps * B * T


@mistakes.add
def rounded_to_nearest(C, F_S, F_T, B, T):
    """The steps are rounded to the nearest whole number.

    A run never spends more than C, so the fraction of a step is cut off."""
    step = price(F_S, F_T, B)
    steps = (2 * C + step) // (2 * step)
    return step, steps, steps * B * T


@mistakes.add
def floats(C, F_S, F_T, B, T):
    """The division is one of floats.

    A float has 53 binary digits, and 10^19 needs 64. Divide with //."""
    step = price(F_S, F_T, B)
    steps = int(C / step)
    return step, steps, steps * B * T


@mistakes.add
def exchanged(C, F_S, F_T, B, T):
    """The steps and the price of a step are exchanged.

    The answer is (FLOPs of a step, steps, tokens), in this order."""
    step, steps, tokens = plan(C, F_S, F_T, B, T)
    return steps, step, tokens


@mistakes.add
def costs_of_a_token(C, F_S, F_T, B, T):
    """F_S and F_T are taken to be the costs of one token.

    They are the FLOPs of a sequence of T tokens, so the price of a step does not contain T."""
    return plan(C, F_S * T, F_T * T, B, T)


@mistakes.add
def tokens_of_a_fraction(C, F_S, F_T, B, T):
    """The tokens include those of a fraction of a step.

    Tokens are read in whole steps: their number is steps B T."""
    step = price(F_S, F_T, B)
    return step, C // step, C / step * B * T


@mistakes.add
def sequences(C, F_S, F_T, B, T):
    """The sequences are counted instead of the tokens.

    Each sequence has T tokens."""
    step = price(F_S, F_T, B)
    return step, C // step, C // step * B


@mistakes.add
def tokens_of_the_budget(C, F_S, F_T, B, T):
    """The tokens are those of the whole budget, not those of whole steps.

    Tokens are read in whole steps: their number is steps B T."""
    step = price(F_S, F_T, B)
    return step, C // step, C * B * T // step


PLAN = Exercise(
    file="2_budget.py", function="plan", right=plan, cases=cases, mistakes=mistakes,
    install=install, tests=(
        "test_budget.py::test_every_strategys_step_costs_what_torch_counts",
        "test_budget.py::"
        "test_a_plan_is_whole_steps_within_the_budget_and_less_than_one_step_below_it",
        "test_budget.py::test_a_budget_of_exactly_n_steps_buys_n_even_where_floats_cannot_tell"),
    parts=("FLOPs of a step", "steps", "tokens"))
