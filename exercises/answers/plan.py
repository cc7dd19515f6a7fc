"""Exercise 2: from a budget to steps and tokens."""
import budget
import distill

from .exercise import Case, Exercise, Mistakes

PLAN_OF_BUDGET = budget.plan  # the project's own, also after `install`


def plan(C, F_S, F_T, B, T):
    """The project's answer: (FLOPs of a step, steps, tokens)."""
    step = price(F_S, F_T, B)
    bought = PLAN_OF_BUDGET(C, step, B, T)
    return step, bought.steps, bought.tokens


def price(F_S, F_T, B):
    """FLOPs of a step: the student runs forward and backward, the teacher forward."""
    return (3 * F_S + F_T) * B


def cases():
    return [
        Case("the one to check by hand", (1000, 10, 20, 2, 4)),
        Case("a budget of no whole number of steps", (10 ** 12, 1_234_567, 7_654_321, 32, 32)),
        Case("a budget with more digits than a float", (10 ** 19 - 1, 3, 1, 1, 128)),
        Case("no teacher", (10 ** 17, 36_271_816_704, 0, 256, 128)),
        Case("one FLOP less than a whole step", (1199, 10, 20, 2, 4))]


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
# Known mistakes: a wrong choice in one part, or in two of them


def answer(C, F_S, F_T, B, T, price=price, steps=lambda C, step: C // step,
           tokens=lambda steps, B, T: steps * B * T, order=(0, 1, 2)):
    """A plan made of these parts."""
    step = price(F_S, F_T, B)
    bought = steps(C, step)
    parts = step, bought, tokens(bought, B, T)
    return tuple(parts[i] for i in order)


def nearest(C, step):
    return (2 * C + step) // (2 * step)


NO_TEACHERS_BACKWARD = ("Nobody trains the teacher, so it has no backward pass (assumption 6 in "
                        "budget.py).")
BACKWARD = ("Of Y = X W the backward pass computes two products, dX and dW. It costs twice the "
            "forward pass, which makes three times in all.")
NEVER_MORE = "A run never spends more than C, so the fraction of a step is cut off."
ALL_TOKENS = "A step reads B sequences of T tokens: their number is steps B T."
IN_THIS_ORDER = "The answer is (FLOPs of a step, steps, tokens), in this order."
PARTS = {
    "price": [
        (lambda F_S, F_T, B: 3 * (F_S + F_T) * B, "The teacher's backward pass is charged.",
         NO_TEACHERS_BACKWARD),
        (lambda F_S, F_T, B: 3 * F_S * B, "The teacher is not charged.",
         "The teacher reads every batch, too. Its forward pass is what distillation costs."),
        (lambda F_S, F_T, B: (F_S + F_T) * B, "The student's backward pass is left out.",
         "The backward pass costs twice the forward pass (assumption 3 in budget.py)."),
        (lambda F_S, F_T, B: (2 * F_S + F_T) * B,
         "The backward pass is charged like one forward pass.", BACKWARD),
        (lambda F_S, F_T, B: (4 * F_S + F_T) * B,
         "The backward pass is charged three times the forward pass.", BACKWARD),
        (lambda F_S, F_T, B: (3 * F_S + 2 * F_T) * B, "The teacher is charged twice.",
         "The teacher reads each batch once, forward."),
        (lambda F_S, F_T, B: (F_S + 3 * F_T) * B, "Student and teacher are exchanged.",
         NO_TEACHERS_BACKWARD),
        (lambda F_S, F_T, B: 3 * F_S + F_T, "A step is charged for one sequence only.",
         "A step reads B sequences."),
        (lambda F_S, F_T, B: 3 * (F_S + F_T),
         "A step is charged for one sequence only, and the teacher's backward pass is charged.",
         f"A step reads B sequences. {NO_TEACHERS_BACKWARD}"),
        (lambda F_S, F_T, B: 3 * F_S * B + F_T,
         "The teacher is charged for one sequence of the batch.",
         "The teacher reads all B sequences: both costs are multiplied by B."),
        (lambda F_S, F_T, B: 3 * F_S + F_T * B,
         "The student is charged for one sequence of the batch.",
         "The student reads all B sequences: both costs are multiplied by B.")],
    "steps": [
        (lambda C, step: -(-C // step), "The steps are rounded up, and so cost more than the "
         "budget.", NEVER_MORE),
        (nearest, "The steps are rounded to the nearest whole number.", NEVER_MORE),
        (lambda C, step: int(C / step), "The division is one of floats.",
         "A float has 53 binary digits, and 10^19 needs 64. Divide with //."),
        (lambda C, step: C / step, "The steps have a fraction.",
         "A run takes whole steps: divide with //."),
        (lambda C, step: C // step + 1, "There is one step too many.", NEVER_MORE),
        (lambda C, step: C // step - 1, "There is one step too few.",
         "C // step steps cost at most C.")],
    "tokens": [
        (lambda steps, B, T: steps * B, "The sequences are counted instead of the tokens.",
         "Each sequence has T tokens."),
        (lambda steps, B, T: steps * T, "The tokens are those of one sequence a step.", ALL_TOKENS),
        (lambda steps, B, T: B * T, "The tokens are those of one step.", ALL_TOKENS)],
    "order": [
        (order, "The three numbers are in another order.", IN_THIS_ORDER)
        for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0))]}

mistakes = Mistakes()
pairs = mistakes.add_parts(answer, PARTS)


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
def tokens_of_the_budget(C, F_S, F_T, B, T):
    """The tokens are those of the whole budget, not those of whole steps.

    Tokens are read in whole steps: their number is steps B T."""
    step = price(F_S, F_T, B)
    return step, C // step, C * B * T // step


@mistakes.add
def tokens_of_whole_sequences(C, F_S, F_T, B, T):
    """The tokens are those of whole sequences, not those of whole steps.

    Tokens are read in whole steps: their number is steps B T."""
    step = price(F_S, F_T, B)
    return step, C // step, C // (3 * F_S + F_T) * T


PLAN = Exercise(
    file="2_budget.py", function="plan", right=plan, cases=cases, mistakes=mistakes,
    pairs=pairs, install=install, tests=(
        "test_budget.py::test_every_strategys_step_costs_what_torch_counts",
        "test_budget.py::"
        "test_a_plan_is_whole_steps_within_the_budget_and_less_than_one_step_below_it",
        "test_budget.py::test_a_budget_of_exactly_n_steps_buys_n_even_where_floats_cannot_tell"),
    parts=("FLOPs of a step", "steps", "tokens"))
