"""What differences between students say: intervals, p-values, and the worth of a score in FLOPs.

"Scratch" is the student that is pretrained without a teacher. All others are compared with it, in
pairs of one seed. Functions that need scipy.stats import it themselves, since it takes a second.
"""
import math
import statistics

MARGIN = 3.0  # points: what differs by less is equal for every practical purpose
LEVEL = 0.05  # of a verdict


def t_975(df):
    """The 97.5% point of Student's t distribution with df degrees of freedom: 95% of it lie between
    this point and its negative."""
    from scipy import stats  # here, since it takes a second
    return float(stats.t.ppf(0.975, df))


def interval(values):
    """(mean, half the width of its 95% interval by Student's t, or None of a single value)."""
    n, mean = len(values), statistics.mean(values)
    if n == 1:
        return mean, None
    # half = t_975(n - 1) s / sqrt(n), where s is the standard deviation of the values
    return mean, t_975(n - 1) * statistics.stdev(values) / math.sqrt(n)


def p_values(differences):
    """(p of the paired t test: were the true mean 0, how probable would one be that is as far from
    0?; p of being equal: were the true mean MARGIN or more away from 0, how probable would one be
    that is as near to 0?)

    The second is twice that of the two one-sided tests (Schuirmann 1987), and so below 5% exactly
    where the whole 95% interval lies within MARGIN of 0. A single difference has neither: both are
    None."""
    from scipy import stats  # here, since it takes a second
    n, mean = len(differences), statistics.mean(differences)
    if n == 1:
        return None, None
    error, room = statistics.stdev(differences) / math.sqrt(n), MARGIN - abs(mean)
    if error == 0:  # all are equal, and t is infinite
        return float(mean == 0), float(room <= 0)
    # t = mean / (s / sqrt(n)), and t = (MARGIN - |mean|) / (s / sqrt(n)): n - 1 degrees of freedom
    p, equal_p = (2 * float(stats.t.sf(t / error, n - 1)) for t in (abs(mean), room))
    return p, min(1.0, equal_p)


def holm(p_values):
    """The p-values of a family of tests, corrected for their number (Holm 1979), in the same order.
    If each corrected one below 0.05 is believed, the chance that any of them is wrong is at most
    5%. A None stays None, and is no test."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected, largest = [None] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        # the smallest p times m, the next one times m - 1, ..., and none below the one before
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def wilson(k, n):
    """(low, high): the 95% interval of a share of which k of n were seen (Wilson 1927). It stays
    between 0 and 1, and has a width where k is 0 or n."""
    from scipy import stats  # here, since it takes a second
    found = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def compute_multiplier(curve, C, score):
    """How many times the budget C scratch needs to reach a score: ("=", kappa). Of a score beyond
    all that was measured only a bound is known: (">", bound) or ("<", bound).

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
    """From how many students on the teacher's training, which cost teacher_flops, pays off: one of
    budget C is worth kappa C FLOPs of scratch. None if it never does."""
    if kappa <= 1 or not teacher_flops:
        return None
    # n = ceil(C_teacher / ((kappa - 1) C))
    return math.ceil(teacher_flops / ((kappa - 1) * C))
