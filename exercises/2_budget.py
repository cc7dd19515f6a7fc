"""Exercise 2. What does a budget buy?                                                                         (20 minutes)

Read first: the assumptions at the top of budget.py.

A run may spend C FLOPs, never more, in whole steps of B sequences of T tokens. What a sequence costs:

    the student's forward pass     F_S FLOPs
    its backward pass              twice that: of Y = X W it computes dX = dY W^T and dW = X^T dY, each a product of the same size
    the teacher's forward pass     F_T FLOPs (0 where there is no teacher)
    its backward pass              none: nobody trains the teacher

Write how much a step costs, how many whole steps C buys, and how many tokens the student reads in them. All are whole numbers, and C may
be 10^19, where floats no longer tell neighbours apart: divide with //.

Check by hand: C = 1000, F_S = 10, F_T = 20, B = 2, T = 4 gives a step of 100 FLOPs, 10 steps, 80 tokens. Then: python exercises/check.py 2
"""


def plan(C, F_S, F_T, B, T):
    """(FLOPs of a step, steps, tokens)."""
    raise NotImplementedError("write plan in exercises/2_budget.py")
