"""Exercise 8. Was it better, at equal compute?                                                                (35 minutes)

Read first: `interval` and `compute_multiplier` in report.py, their docstrings only; "The experiment" in README.md.

Two strategies spent the same C FLOPs, with seeds 1 to n each. Students of one seed began with the same weights and saw the same batches, so their scores rise and fall
together: compare them pair by pair. Of the differences x_i = student_i - scratch_i

    mean        m = 1/n sum_i x_i
    interval    m +- t_{0.975, n-1} s / sqrt(n)         s^2 = 1/(n - 1) sum_i (x_i - m)^2

And how much compute is that worth? `curve` holds scratch's mean scores at several budgets, [(FLOPs, score), ...], rising. Between two of its points the score is a straight line
over the logarithm of the budget. Find the budget C* at which scratch scores what the student scores in the mean; the compute multiplier is

    kappa = C* / C

The student's mean score lies within the curve. `t_975(df)` is t for df degrees of freedom. Return (m, half of the interval, kappa).

Check by hand: student (60, 60), scratch (50, 50), curve [(1e12, 40), (1e13, 60)], C = 1e12 gives (10, 0, 10). Then: python exercises/check.py 8
"""
from report import t_975  # noqa: F401


def isoflop(student, scratch, curve, C):
    """Two lists of n >= 2 scores, [(FLOPs, score)], FLOPs -> (mean difference, half of its 95% interval, compute multiplier)."""
    raise NotImplementedError("write isoflop in exercises/8_isoflop.py")
