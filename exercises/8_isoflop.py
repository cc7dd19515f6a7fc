"""Exercise 8. Was it better, at equal compute? (35 minutes)

Read first: `interval` and `compute_multiplier` in measure/statistics.py, their docstrings only;
stop 12 of TUTORIAL.md, "The experiment".

Two strategies spent the same C FLOPs, each with the seeds 1 to n. Students of one seed began with
the same weights and read the same blocks in the same order, though not equally many. So their
scores rise and fall together. Compare them pair by pair. Of the differences
x_i = student_i - scratch_i compute

    mean        m = 1/n sum_i x_i
    interval    m +- t_{0.975, n-1} s / sqrt(n)         s^2 = 1/(n - 1) sum_i (x_i - m)^2

`t_975(df)` is the 97.5% point of Student's t distribution with df degrees of freedom.

How much compute is that difference worth? `curve` holds scratch's mean scores at several budgets,
[(FLOPs, score), ...], and both rise. Between two neighbouring points the score is a straight line
over the logarithm of the budget. Find the budget C* at which scratch scores what the student scores
in the mean. The compute multiplier is

    kappa = C* / C

The student's mean score lies within the curve. Return (m, half of the interval, kappa).

Check by hand: student (60, 60), scratch (50, 50), curve [(1e12, 40), (1e13, 60)] and C = 1e12 give
(10, 0, 10). Then run: python exercises/check.py 8
"""
from measure.statistics import t_975  # noqa: F401


def isoflop(student, scratch, curve, C):
    """Two lists of n >= 2 scores, [(FLOPs, score)], FLOPs -> (mean difference, half of its 95%
    interval, compute multiplier)."""
    raise NotImplementedError("write isoflop in exercises/8_isoflop.py")
