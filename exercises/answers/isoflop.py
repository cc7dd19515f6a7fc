"""Exercise 8: the comparison at equal compute."""
import math
from statistics import mean, pstdev, stdev

from measure import statistics
from measure.statistics import t_975

from .exercise import Exercise, Mistakes

INTERVAL, COMPUTE_MULTIPLIER = statistics.interval, statistics.compute_multiplier  # project's own


def isoflop(student, scratch, curve, C):
    """The right answer: (mean difference, half of its interval, compute multiplier)."""
    x = [a - b for a, b in zip(student, scratch)]
    return mean(x), half_interval(stdev(x), len(x)), multiplier(curve, C, mean(student))


def half_interval(s, n):
    """Half of the 95% interval of a mean of n values whose standard deviation is s."""
    return t_975(n - 1) * s / math.sqrt(n)


def multiplier(curve, C, score):
    """kappa, for a score within the curve."""
    _, kappa = COMPUTE_MULTIPLIER(curve, C, score)
    return kappa


def cases():
    curve = [(1e12, 40.0), (1e13, 60.0), (1e14, 70.0)]
    return [({}, arguments) for arguments in (
        ([60.0, 60.0], [50.0, 50.0], curve[:2], 1e12),
        ([52.0, 47.5, 55.0], [41.0, 38.0, 44.5], curve, 1e12),
        ([66.0, 61.0, 64.0, 63.5], [60.5, 57.0, 59.0, 62.0], curve, 1e13),
        ([50.0, 53.0, 51.0, 49.0, 50.0, 55.0], [60.0, 62.0, 61.0, 58.0, 60.0, 63.0], curve,
         1e13))]


def install(student):
    """The student's function gives the project's intervals and compute multipliers."""
    all_scores = [(1.0, -1e9), (2.0, 1e9)]  # a curve on which every score lies

    def interval(values):
        if len(values) < 2:
            return INTERVAL(values)
        return student(list(values), [0.0] * len(values), all_scores, 1.0)[:2]

    def compute_multiplier(curve, C, score):
        sign, kappa = COMPUTE_MULTIPLIER(curve, C, score)
        curve = sorted(curve)
        is_rising = curve == sorted(curve, key=lambda point: point[1])
        if sign != "=" or not is_rising:
            return sign, kappa
        _, _, kappa = student([score, score], [score, score], curve, C)
        return sign, kappa

    statistics.interval, statistics.compute_multiplier = interval, compute_multiplier


# --------------------------------------------------------------------------------------------------
# Known mistakes

mistakes = Mistakes()


@mistakes.add
def scratch_minus_student(student, scratch, curve, C):
    """The difference is scratch minus student.

    x_i = student_i - scratch_i is positive where the student is ahead."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return -m, half, kappa


def spread_of_two_groups(student, scratch):
    """The standard deviation of a difference of values that are not paired."""
    return math.sqrt(stdev(student) ** 2 + stdev(scratch) ** 2)


@mistakes.add
def not_paired(student, scratch, curve, C):
    """The scores are not paired.

    Scores of one seed rise and fall together. Take the spread of the differences, not of the two
    groups."""
    m, _, kappa = isoflop(student, scratch, curve, C)
    return m, half_interval(spread_of_two_groups(student, scratch), len(student)), kappa


@mistakes.add
def not_paired_2n_minus_2(student, scratch, curve, C):
    """The scores are not paired, and there are 2 n - 2 degrees of freedom.

    Scores of one seed rise and fall together. Take the spread of the differences, not of the two
    groups."""
    n = len(student)
    m, _, kappa = isoflop(student, scratch, curve, C)
    half = t_975(2 * n - 2) * spread_of_two_groups(student, scratch) / math.sqrt(n)
    return m, half, kappa


@mistakes.add
def one_end(student, scratch, curve, C):
    """The second number is one end of the interval.

    Half of the interval is asked for: what is added to the mean and subtracted from it."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, m - half, kappa


@mistakes.add
def scratchs_own_mean(student, scratch, curve, C):
    """C* is looked up at scratch's own mean score.

    C* is the budget at which scratch scores what the student scores."""
    m, half, _ = isoflop(student, scratch, curve, C)
    return m, half, multiplier(curve, C, mean(scratch))


@mistakes.add
def divided_by_n(student, scratch, curve, C):
    """The spread is divided by n.

    s^2 is divided by n - 1, since the mean was taken from the same numbers."""
    m, _, kappa = isoflop(student, scratch, curve, C)
    x = [a - b for a, b in zip(student, scratch)]
    return m, half_interval(pstdev(x), len(x)), kappa


@mistakes.add
def normal(student, scratch, curve, C):
    """The factor is the normal distribution's 1.96.

    With few seeds s itself is uncertain. Use Student's t, which is 4.3 for three seeds."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, half / t_975(len(student) - 1) * 1.96, kappa


@mistakes.add
def n_degrees_of_freedom(student, scratch, curve, C):
    """Student's t is taken with n degrees of freedom.

    There are n - 1 degrees of freedom."""
    n = len(student)
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, half / t_975(n - 1) * t_975(n), kappa


@mistakes.add
def no_root_n(student, scratch, curve, C):
    """The division by sqrt(n) is missing.

    The interval is that of the mean, whose spread is s / sqrt(n)."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, half * math.sqrt(len(student)), kappa


@mistakes.add
def whole_width(student, scratch, curve, C):
    """The second number is the whole width of the interval.

    Half of the interval is asked for: the interval is m +- half."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, 2 * half, kappa


@mistakes.add
def straight_over_flops(student, scratch, curve, C):
    """The curve is a straight line over the FLOPs.

    It is one over the logarithm of the budget, since budgets are compared by their ratios."""
    m, half, _ = isoflop(student, scratch, curve, C)
    score = mean(student)
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 <= score <= s1:
            share = (score - s0) / (s1 - s0)
            return m, half, (C0 + share * (C1 - C0)) / C


@mistakes.add
def upside_down(student, scratch, curve, C):
    """The multiplier is upside down.

    kappa = C* / C is above 1 where the student is ahead."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, half, 1 / kappa


@mistakes.add
def ratio_of_scores(student, scratch, curve, C):
    """The multiplier is the ratio of the scores.

    kappa compares FLOPs, not scores."""
    m, half, _ = isoflop(student, scratch, curve, C)
    return m, half, mean(student) / mean(scratch)


@mistakes.add
def not_divided_by_C(student, scratch, curve, C):
    """The third number is C* instead of C* / C.

    Divide by the budget C that both spent."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m, half, kappa * C


@mistakes.add
def summed(student, scratch, curve, C):
    """The first number is the sum of the differences instead of the mean.

    m = 1/n sum_i x_i."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m * len(student), half, kappa


ISOFLOP = Exercise(
    file="8_isoflop.py", function="isoflop", right=isoflop, cases=cases, mistakes=mistakes,
    install=install, parts=("mean", "half", "kappa"), tests=(
        "test_statistics.py::test_the_interval_is_scipys",
        "test_statistics.py::test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference",
        "test_statistics.py::test_the_compute_multiplier_is_read_off_scratchs_own_curve"))
