"""What differences between students say: intervals, tests, verdicts, and the worth of a score in
FLOPs.

"Scratch" is the student that is pretrained without a teacher. All others are compared with it. Two
kinds of quantities are compared. A score is a number, and Student's t is its test. A skill is there
or not, and the tests of counts are exact ones.
"""
import functools
import math
import statistics

MARGIN = 3.0  # points: what differs by less is equal for every practical purpose
LEVEL = 0.05  # of a verdict

# --------------------------------------------------------------------------------------------------
# Numbers: Student's t


def t_p_value(t, df):
    """P(|T| >= |t|) of Student's t distribution with df degrees of freedom (Abramowitz and Stegun
    1964, 26.7.3 and 26.7.4)."""
    theta = math.atan(abs(t) / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    if df % 2:
        # A = 2/pi (theta + sin (cos + 2/3 cos^3 + 2/3 4/5 cos^5 + ... up to cos^(df - 2)))
        inside = 2 / math.pi * (theta + sine * cosine_series(cosine, 1, df))
    else:
        # A = sin (1 + 1/2 cos^2 + 1/2 3/4 cos^4 + ... up to cos^(df - 2))
        inside = sine * cosine_series(cosine, 0, df)
    return max(0.0, 1 - inside)


def cosine_series(cosine, first, df):
    """The sum of cos^k for k = first, first + 2, ..., df - 2, each with the coefficient
    (k - 1) / k times the one before, from 1."""
    total, term = 0.0, cosine ** first
    for k in range(first, df - 1, 2):
        total += term
        term *= cosine ** 2 * (k + 1) / (k + 2)
    return total


@functools.cache
def t_975(df):
    """The 97.5% point of Student's t distribution with df degrees of freedom: 95% of it lie between
    this point and its negative."""
    low, high = 0.0, 13.0  # of df = 1 it is 12.7
    for _ in range(60):
        middle = (low + high) / 2
        if t_p_value(middle, df) > 0.05:
            low = middle
        else:
            high = middle
    return high


def interval(values):
    """(mean, half the width of its 95% interval by Student's t). A single value has no interval:
    the half is None."""
    n, mean = len(values), statistics.mean(values)
    if n == 1:
        return mean, None
    # half = t_975(n - 1) s / sqrt(n), where s is the standard deviation of the values
    return mean, t_975(n - 1) * statistics.stdev(values) / math.sqrt(n)


def paired_p_value(differences):
    """The p-value of the paired t test: were the mean of these differences 0, how probable would
    one be that is as far from 0? None for a single difference."""
    n, mean = len(differences), statistics.mean(differences)
    if n == 1:
        return None
    s = statistics.stdev(differences)
    if s == 0:
        return 1.0 if mean == 0 else 0.0
    # t = mean / (s / sqrt(n)), with n - 1 degrees of freedom
    return t_p_value(mean / (s / math.sqrt(n)), n - 1)


def equal_p_value(differences):
    """The p-value of being equal: were the true mean MARGIN or more away from 0, how probable would
    it be to see one as near to 0 as this? None for a single difference.

    It is twice that of the two one-sided tests (Schuirmann 1987), and so below 5% exactly where the
    whole 95% interval lies within MARGIN of 0."""
    n, mean = len(differences), statistics.mean(differences)
    if n == 1:
        return None
    s, room = statistics.stdev(differences), MARGIN - abs(mean)
    if room <= 0 or s == 0:
        return 1.0 if room <= 0 else 0.0
    # t = (MARGIN - |mean|) / (s / sqrt(n)), with n - 1 degrees of freedom
    return t_p_value(room / (s / math.sqrt(n)), n - 1)


# --------------------------------------------------------------------------------------------------
# Counts: how many students have a skill


LEAST_PAIRS = 6  # 2 / 2^6 = 0.031, and 2 / 2^5 = 0.063


def wilson(k, n):
    """(low, high): the 95% interval of a share of which k of n were seen (Wilson 1927).

    Unlike mean +- 2 standard errors it stays between 0 and 1, and has a width where k is 0 or n."""
    z, p = 1.959964, k / n
    # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    centre = p + z ** 2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z ** 2 / (4 * n ** 2))
    scale = 1 + z ** 2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mcnemar_exact(pairs):
    """The p-value of McNemar's exact test. pairs: [(has the skill, its partner has it)].

    Only pairs that differ count. Did the skill not depend on which of the two it is, each of them
    would be a coin's toss. With fewer than LEAST_PAIRS of them no result has a p-value below 5%."""
    first = sum(one and not other for one, other in pairs)
    second = sum(other and not one for one, other in pairs)
    n = first + second
    # p = 2 sum over i <= min(first, second) of C(n, i) / 2^n, and at most 1
    tail = sum(math.comb(n, i) for i in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2 ** n)


def fisher_exact(k1, n1, k2, n2):
    """The two-sided p-value of Fisher's exact test: k1 of n1 students have a skill, and k2 of n2
    others.

    It adds up the probabilities of all tables with the same sums that are no more probable than the
    one that was seen."""
    k, n = k1 + k2, n1 + n2
    # P(i of the k fall among the n1) = C(n1, i) C(n2, k - i) / C(n, k)
    ways = {i: math.comb(n1, i) * math.comb(n2, k - i)
            for i in range(max(0, k - n2), min(k, n1) + 1)}
    return sum(w for w in ways.values() if w <= ways[k1]) / math.comb(n, k)


# --------------------------------------------------------------------------------------------------
# Verdicts


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


def verdict(mean, p, equal_p, n):
    """In words, what the differences to scratch of n seeds say. p, equal_p: from `paired_p_value`
    and `equal_p_value`, corrected where there are several differences.

    Students are equal where a difference as large as MARGIN is ruled out: then a null result is
    shown, and not only missed."""
    if p is None:
        return "one seed: no verdict"
    if p < LEVEL:
        return "ahead of scratch" if mean > 0 else "behind scratch"
    if equal_p < LEVEL:
        return f"equal to scratch within {MARGIN:g} points"
    return f"not told apart from scratch with {n} seeds"


def is_resolved(words):
    """Whether a verdict says something: ahead, behind or equal."""
    return words.startswith(("ahead", "behind", "equal"))


# --------------------------------------------------------------------------------------------------
# Where the spread comes from


def shares_of_spread(means, variances, k):
    """(variance between students, variance between fine-tunings of one student), by an analysis of
    variance. The first is an estimate, and may be negative where the truth is near 0.

    means, variances: for each student those of the scores of its k fine-tunings. A student's mean
    has the variance between + within / k."""
    # within = the mean of the variances;  between = Var(means) - within / k
    within = statistics.mean(variances)
    return statistics.variance(means) - within / k, within


# --------------------------------------------------------------------------------------------------
# What a score is worth in FLOPs


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
