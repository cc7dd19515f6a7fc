"""Exercise 2: from a budget to steps and tokens."""
from typing import Callable, NamedTuple

import budget
import distill

from .exercise import Case, Exercise, wrong_parts

PLAN_OF_BUDGET = budget.plan  # the project's own, also after `install`


def plan(C, F_S, F_T, B, T):
    """The project's answer: (FLOPs of a step, steps, tokens)."""
    step = (3 * F_S + F_T) * B  # the student runs forward and backward, the teacher forward
    bought = PLAN_OF_BUDGET(C, step, B, T)
    return step, bought.steps, bought.tokens


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
# Known mistakes


class Parts(NamedTuple):
    """What a plan is made of. With these parts it is right."""
    price: Callable = lambda F_S, F_T, B, T: (3 * F_S + F_T) * B
    steps: Callable = lambda C, step: C // step
    tokens: Callable = lambda C, step, steps, B, T: steps * B * T
    order: tuple = (0, 1, 2)


def plan_of(C, F_S, F_T, B, T, parts=Parts()):
    step = parts.price(F_S, F_T, B, T)
    steps = parts.steps(C, step)
    numbers = step, steps, parts.tokens(C, step, steps, B, T)
    return tuple(numbers[i] for i in parts.order)


NEVER_MORE = "A run never spends more than C, so the fraction of a step is cut off."
NO_BACKWARD = "Nobody trains the teacher, so it has no backward pass (assumption 6 in budget.py)."
ALL_SEQUENCES = "A step reads B sequences: both costs are multiplied by B."
WHOLE_STEPS = "Tokens are read in whole steps: their number is steps B T."
ROWS = [
    (dict(price=lambda F_S, F_T, B, T: 3 * (F_S + F_T) * B),
     "The teacher's backward pass is charged.",
     NO_BACKWARD),
    (dict(price=lambda F_S, F_T, B, T: 3 * (F_S + F_T)),
     "A step is charged for one sequence only, and the teacher's backward pass is charged.",
     f"{ALL_SEQUENCES} {NO_BACKWARD}"),
    (dict(price=lambda F_S, F_T, B, T: 3 * F_S + F_T,
          tokens=lambda C, step, steps, B, T: steps * T),
     "A step is taken to be one sequence.", "A step reads B sequences of T tokens."),
    (dict(price=lambda F_S, F_T, B, T: 3 * F_S * B), "The teacher is not charged.",
     "The teacher reads every batch, too. Its forward pass is what distillation costs."),
    (dict(price=lambda F_S, F_T, B, T: (F_S + F_T) * B),
     "The student's backward pass is left out.",
     "The backward pass costs twice the forward pass (assumption 3 in budget.py)."),
    (dict(price=lambda F_S, F_T, B, T: (2 * F_S + F_T) * B),
     "The backward pass is charged like one forward pass.",
     "Of Y = X W the backward pass computes two products, dX and dW. It costs twice the forward "
     "pass, which makes three times in all."),
    (dict(price=lambda F_S, F_T, B, T: 3 * F_S + F_T), "A step is charged for one sequence only.",
     ALL_SEQUENCES),
    (dict(price=lambda F_S, F_T, B, T: 3 * F_S * B + F_T),
     "The teacher is charged for one sequence of the batch.", ALL_SEQUENCES),
    (dict(price=lambda F_S, F_T, B, T: 3 * F_S + F_T * B),
     "The student is charged for one sequence of the batch.", ALL_SEQUENCES),
    (dict(price=lambda F_S, F_T, B, T: (3 * F_S + F_T) * B * T),
     "F_S and F_T are taken to be the costs of one token.",
     "They are the FLOPs of a sequence of T tokens, so the price of a step does not contain T."),
    (dict(steps=lambda C, step: -(-C // step)),
     "The steps are rounded up, and so cost more than the budget.", NEVER_MORE),
    (dict(steps=lambda C, step: (2 * C + step) // (2 * step)),
     "The steps are rounded to the nearest whole number.", NEVER_MORE),
    (dict(steps=lambda C, step: int(C / step)), "The division is one of floats.",
     "A float has 53 binary digits, and 10^19 needs 64. Divide with //."),
    (dict(steps=lambda C, step: C / step), "The steps have a fraction.",
     "A run takes whole steps: divide with //."),
    (dict(tokens=lambda C, step, steps, B, T: steps * B),
     "The sequences are counted instead of the tokens.", "Each sequence has T tokens."),
    (dict(tokens=lambda C, step, steps, B, T: steps * T),
     "The tokens are those of one sequence a step.",
     "A step reads B sequences of T tokens: their number is steps B T."),
    (dict(tokens=lambda C, step, steps, B, T: C / step * B * T),
     "The tokens include those of a fraction of a step.", WHOLE_STEPS),
    (dict(tokens=lambda C, step, steps, B, T: C * B * T // step),
     "The tokens are those of the whole budget, not those of whole steps.", WHOLE_STEPS),
    *((dict(order=order), "The three numbers are in another order.",
       "The answer is (FLOPs of a step, steps, tokens), in this order.")
      for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0)))]

PLAN = Exercise(
    file="2_budget.py", function="plan", right=plan, cases=cases,
    mistakes=wrong_parts(plan_of, Parts(), ROWS), install=install, tests=(
        "test_budget.py::test_every_strategys_step_costs_what_torch_counts",
        "test_budget.py::"
        "test_a_plan_is_whole_steps_within_the_budget_and_less_than_one_step_below_it",
        "test_budget.py::test_a_budget_of_exactly_n_steps_buys_n_even_where_floats_cannot_tell"),
    parts=("FLOPs of a step", "steps", "tokens"))
