"""Exercise 2. What does a budget buy? (20 minutes)

Read first: the assumptions at the top of budget.py.

A run may spend C FLOPs and never more. It spends them in whole steps, and each step reads B
sequences of T tokens. One sequence costs:

    the student's forward pass    F_S FLOPs
    its backward pass             2 F_S FLOPs
    the teacher's forward pass    F_T FLOPs (0 where there is no teacher)
    its backward pass             none, since nobody trains the teacher

The student's backward pass costs twice the forward pass. For each product Y = X W it computes
dX = dY W^T and dW = X^T dY, and each of these costs as much as Y.

Write how many FLOPs a step costs, how many whole steps C buys, and how many tokens the student
reads in them. All three are whole numbers. C may be 10^19, where floats no longer tell neighbouring
numbers apart, so divide with //.

Check by hand: C = 1000, F_S = 10, F_T = 20, B = 2, T = 4 gives a step of 100 FLOPs, 10 steps and 80
tokens. Then run: python exercises/check.py 2
"""


def plan(C, F_S, F_T, B, T):
    """(FLOPs of a step, steps, tokens)."""
    raise NotImplementedError("write plan in exercises/2_budget.py")
