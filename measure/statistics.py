"""What differences between students say: intervals, verdicts, and the worth of a score in FLOPs.

"Scratch" is the student that is pretrained without a teacher. All others are compared with it.
"""
import math
import statistics

# The 97.5% points of Student's t distribution for 1 to 30 degrees of freedom.
T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
         2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
         2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423)


def t_975(df):
    """The 97.5% point of Student's t distribution with df degrees of freedom. 95% of the
    distribution lie between this point and its negative.

    Above 30 degrees of freedom it is expanded around z, the same point of the normal distribution
    (Abramowitz and Stegun 1964, 26.7.5)."""
    if df <= 30:
        return T_975[df - 1]
    z = 1.959964
    # t = z + (z^3 + z) / (4 df) + (5 z^5 + 16 z^3 + 3 z) / (96 df^2) + ...
    return z + (z ** 3 + z) / (4 * df) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * df ** 2)


def interval(values):
    """(mean, half the width of its 95% interval by Student's t). A single value has no interval:
    the half is None."""
    n, mean = len(values), statistics.mean(values)
    if n == 1:
        return mean, None
    # half = t_975(n - 1) s / sqrt(n), where s is the standard deviation of the values
    return mean, t_975(n - 1) * statistics.stdev(values) / math.sqrt(n)


def verdict(mean, half, n):
    """In words, what `interval` says about the differences to scratch of n seeds."""
    if half is None:
        return "one seed: no verdict"
    if abs(mean) <= half or mean == 0:
        return f"not told apart from scratch with {n} seeds"
    return "ahead of scratch" if mean > 0 else "behind scratch"


def compute_multiplier(curve, C, score):
    """How many times the budget C scratch needs to reach a score: ("=", kappa).

    If the score lies beyond all that was measured, kappa is only known to be above a bound, which
    gives (">", bound), or below it, ("<", bound).

    curve: scratch's [(FLOPs, score)]. Between two points it is a straight line over log FLOPs. If
    the curve reaches the score more than once, the first time counts."""
    curve = sorted(curve)
    least_C, least_score = curve[0]
    if score <= least_score:
        return ("=" if score == least_score else "<"), least_C / C
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 < score <= s1:
            # log C* = log C0 + (score - s0) / (s1 - s0) (log C1 - log C0);  kappa = C* / C
            share = (score - s0) / (s1 - s0)
            return "=", math.exp(math.log(C0) + share * (math.log(C1) - math.log(C0))) / C
    return ">", curve[-1][0] / C


def break_even(teacher_flops, kappa, C):
    """From how many students on the teacher's training pays off. None if it never does.

    teacher_flops: what that training costs. A student of budget C is worth kappa C FLOPs of
    scratch, and so saves (kappa - 1) C."""
    if kappa <= 1 or not teacher_flops:
        return None
    # n = ceil(C_teacher / ((kappa - 1) C))
    return math.ceil(teacher_flops / ((kappa - 1) * C))
