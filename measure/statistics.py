"""Statistics."""
import math
import statistics

# 97.5% points of Student's t for 1 to 30 degrees of freedom; above, the first terms of its expansion around the normal's.
T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
         2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423)


def t_975(df):
    """The 97.5% point of Student's t with df degrees of freedom: between it and its negative lie 95%."""
    z = 1.959964
    return T_975[df - 1] if df <= 30 else z + (z ** 3 + z) / (4 * df) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * df ** 2)


def interval(values):
    """(mean, half the width of its 95% interval by Student's t); the half is None for a single value."""
    n = len(values)
    return statistics.mean(values), t_975(n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else None


def verdict(mean, half, n):
    """A difference to scratch in words."""
    if half is None:
        return "one seed: no verdict"
    if abs(mean) <= half or mean == 0:
        return f"not told apart from scratch with {n} seeds"
    return "ahead of scratch" if mean > 0 else "behind scratch"


def compute_multiplier(curve, C, score):
    """How many times the budget C scratch needs to reach `score`: ("=", kappa), or, beyond what was measured, (">", bound) or ("<", bound).

    curve: scratch's [(FLOPs, score)]; between two points it is a straight line over log FLOPs, and the first crossing counts."""
    curve = sorted(curve)
    if score <= curve[0][1]:
        return ("=" if score == curve[0][1] else "<"), curve[0][0] / C
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 < score <= s1:
            share = (score - s0) / (s1 - s0)
            return "=", math.exp(math.log(C0) + share * (math.log(C1) - math.log(C0))) / C
    return ">", curve[-1][0] / C


def break_even(teacher_flops, kappa, C):
    """From how many students on a teacher pays that costs C_teacher: each saves (kappa - 1) C. None where it never does."""
    return math.ceil(teacher_flops / ((kappa - 1) * C)) if kappa > 1 and teacher_flops else None
