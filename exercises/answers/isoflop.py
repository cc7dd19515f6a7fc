"""Exercise 8: the comparison at equal compute."""
import math
from functools import partial
from statistics import linear_regression, mean, median, pstdev, pvariance, stdev

from measure import statistics
from measure.statistics import t_975

from .exercise import Case, Exercise, Mistake, Mistakes

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
    curve = [(1e12, 40.0), (1e13, 60.0), (3e13, 70.0)]
    return [
        Case("the one to check by hand", ([60.0, 60.0], [50.0, 50.0], curve[:2], 1e12)),
        Case("three seeds", ([52.0, 47.5, 55.0], [41.0, 38.0, 44.5], curve, 1e12)),
        Case("four seeds, and the second piece of the curve",
             ([66.0, 61.0, 64.0, 63.5], [60.5, 57.0, 59.0, 62.0], curve, 1e13)),
        Case("a student that is behind", (
            [50.0, 53.0, 51.0, 49.0, 50.0, 55.0], [60.0, 62.0, 61.0, 58.0, 60.0, 63.0], curve,
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
# What the answer is made of: `answer` with its defaults is right

# What the spread is that of: (student, scratch) -> values


def differences(student, scratch):
    return [a - b for a, b in zip(student, scratch)]


def sorted_differences(student, scratch):
    return differences(sorted(student), sorted(scratch))


def students_scores(student, scratch):
    return student


def scratchs_scores(student, scratch):
    return scratch


# The spread of values


def variance(values):
    return stdev(values) ** 2


def mean_deviation(values):
    return mean(abs(value - mean(values)) for value in values)


def value_range(values):
    return max(values) - min(values)


# The scores between the points of the curve: (curve, score) -> a budget


def straight(curve, score, budget=math.log, back=math.exp, scale=float, share=lambda share: share):
    """C* on straight lines between neighbouring points of (budget(C), scale(score))."""
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 <= score <= s1:
            s0, s1, s = scale(s0), scale(s1), scale(score)
            x0, x1 = budget(C0), budget(C1)
            return back(x0 + share((s - s0) / (s1 - s0)) * (x1 - x0))
    return math.nan


def nearest(curve, score):
    return min(curve, key=lambda point: abs(point[1] - score))[0]


def first_above(curve, score):
    return next((C for C, s in curve if s >= score), math.nan)


def last_below(curve, score):
    return max((C for C, s in curve if s <= score), default=math.nan)


def ends(curve, score):
    return straight([curve[0], curve[-1]], score)


def through(point, other, score):
    """The budget of a score on the line through two points, also beyond them."""
    (C0, s0), (C1, s1) = point, other
    return C0 * (C1 / C0) ** ((score - s0) / (s1 - s0))


def first_piece(curve, score):
    return through(*curve[:2], score)


def last_piece(curve, score):
    return through(*curve[-2:], score)


def least_squares(curve, score):
    slope, intercept = linear_regression([math.log(C) for C, _ in curve], [s for _, s in curve])
    return math.exp((score - intercept) / slope)


def share_of_the_ratio(curve, score):
    """C0 times a share of C1 / C0."""
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 <= score <= s1:
            return C0 * (score - s0) / (s1 - s0) * (C1 / C0)
    return math.nan


# The score at which the curve is read: (student, scratch, curve) -> a score


def students_mean(student, scratch, curve):
    return mean(student)


def scratchs_mean(student, scratch, curve):
    return mean(scratch)


def the_difference(student, scratch, curve):
    """m, or an end of the curve where m lies beyond it."""
    return min(curve[-1][1], max(curve[0][1], mean(student) - mean(scratch)))


# Each of the other choices is a small function, and stands beside the mistake that it makes.


def answer(student, scratch, curve, C, center=mean, spread_of=differences, spread=stdev,
           factor=lambda n: t_975(n - 1), root=math.sqrt, half=lambda m, half: half,
           line=straight, score=students_mean, worth=lambda star, C, curve: star / C,
           order=(0, 1, 2)):
    """An isoflop made of these parts."""
    n, m = len(student), center(differences(student, scratch))
    width = factor(n) * spread(spread_of(student, scratch)) / root(n)
    star = line(curve, score(student, scratch, curve))
    parts = m, half(m, width), worth(star, C, curve)
    return tuple(parts[i] for i in order)


# --------------------------------------------------------------------------------------------------
# Known mistakes: a wrong choice in one part, or in two of them

INTERVAL_IS = "The interval is m +- t s / sqrt(n), with t_975(n - 1)."
OF_DIFFERENCES = ("Scores of one seed rise and fall together. Take the spread of the differences, "
                  "not of the two groups.")
HALF_ASKED = "Half of the interval is asked for: what is added to the mean and subtracted from it."
LINES = ("The score is a straight line over the logarithm of the budget, between the two "
         "neighbouring points.")
RATIO = "kappa = C* / C, a ratio of budgets, which is 1 where both strategies are equal."
IN_THIS_ORDER = "The answer is (mean, half, kappa), in this order."
PARTS = {
    "center": [
        (lambda x: -mean(x), "The difference is scratch minus student.",
         "x_i = student_i - scratch_i is positive where the student is ahead."),
        (sum, "The first number is the sum of the differences instead of the mean.",
         "m = 1/n sum_i x_i."),
        (median, "The first number is the median of the differences.", "m = 1/n sum_i x_i."),
        (lambda x: abs(mean(x)), "The first number has no sign.",
         "m is negative where the student is behind."),
        (max, "The first number is the largest difference.", "m = 1/n sum_i x_i.")],
    "spread_of": [
        (students_scores, "The spread is that of the student's scores.", OF_DIFFERENCES),
        (scratchs_scores, "The spread is that of scratch's scores.", OF_DIFFERENCES),
        (sorted_differences, "The scores are sorted before they are paired.",
         "Scores of one seed belong together: pair them in the order in which they are given.")],
    "spread": [
        (pstdev, "The spread is divided by n.",
         "s^2 is divided by n - 1, since the mean was taken from the same numbers."),
        (variance, "The variance is taken for the standard deviation.", "s is the root of s^2."),
        (pvariance, "The variance is taken for the standard deviation, and divided by n.",
         "s^2 is divided by n - 1, and s is its root."),
        (mean_deviation, "The spread is the mean absolute deviation.",
         "s^2 = 1/(n - 1) sum_i (x_i - m)^2."),
        (value_range, "The spread is the range.", "s^2 = 1/(n - 1) sum_i (x_i - m)^2.")],
    "factor": [
        (lambda n: 1.96, "The factor is the normal distribution's 1.96.",
         "With few seeds s itself is uncertain. Use Student's t, which is 4.3 for three seeds."),
        (lambda n: 2, "The factor is 2.",
         "With few seeds s itself is uncertain. Use Student's t, which is 4.3 for three seeds."),
        (lambda n: 1.645, "The factor is 1.645, the normal distribution's 95% point.",
         "Between -t and t lie 95%, so 97.5% lie below t. And with few seeds use Student's t."),
        (lambda n: t_975(n), "Student's t is taken with n degrees of freedom.",
         "There are n - 1 degrees of freedom."),
        (lambda n: t_975(max(1, n - 2)), "Student's t is taken with n - 2 degrees of freedom.",
         "There are n - 1 degrees of freedom: one mean was taken from the n differences."),
        (lambda n: t_975(2 * n - 2), "Student's t is taken with 2 n - 2 degrees of freedom.",
         "That is the test of two groups. The n differences are one group: n - 1."),
        (lambda n: 1, "The factor t is missing: the second number is a standard error.",
         INTERVAL_IS)],
    "root": [
        (lambda n: 1, "The division by sqrt(n) is missing.",
         "The interval is that of the mean, whose spread is s / sqrt(n)."),
        (lambda n: math.sqrt(n - 1), "The spread is divided by sqrt(n - 1).",
         "The spread of a mean is s / sqrt(n), and n - 1 is inside s already."),
        (lambda n: n, "The spread is divided by n instead of its root.",
         "The spread of a mean is s / sqrt(n).")],
    "half": [
        (lambda m, half: m - half, "The second number is one end of the interval.", HALF_ASKED),
        (lambda m, half: m + half, "The second number is the upper end of the interval.",
         HALF_ASKED),
        (lambda m, half: 2 * half, "The second number is the whole width of the interval.",
         "Half of the interval is asked for: the interval is m +- half."),
        (lambda m, half: half / 2, "Half of the interval is halved once more.",
         "t s / sqrt(n) is half of the interval already.")],
    "line": [
        (partial(straight, budget=float, back=float),
         "The curve is a straight line over the FLOPs.",
         "It is one over the logarithm of the budget, since budgets are compared by their ratios."),
        (partial(straight, scale=math.log), "The logarithm is taken of the scores, too.", LINES),
        (partial(straight, scale=math.log, budget=float, back=float),
         "The logarithm is taken of the scores instead of the budgets.", LINES),
        (partial(straight, budget=math.log10), "Logarithms of two bases are mixed.",
         "What log10 has made 10 ** undoes, and what log has made exp undoes."),
        (partial(straight, back=lambda x: 10 ** min(x, 300)), "Logarithms of two bases are mixed.",
         "What log10 has made 10 ** undoes, and what log has made exp undoes."),
        (partial(straight, share=lambda share: 1 - share),
         "The weights of the two points are exchanged.",
         "At the lower point's score the lower budget is the answer."),
        (nearest, "C* is the nearest point of the curve.", LINES),
        (first_above, "C* is the first point of the curve that scores as much.", LINES),
        (last_below, "C* is the last point of the curve that scores less.", LINES),
        (ends, "One line goes through the first and the last point.", LINES),
        (first_piece, "The line is always that through the first two points.", LINES),
        (last_piece, "The line is always that through the last two points.", LINES),
        (least_squares, "One line of least squares goes through all points.", LINES),
        (share_of_the_ratio, "C* is a share of C1 / C0, instead of its power.",
         "On a line over the logarithm C* = C0 (C1 / C0)^share.")],
    "score": [
        (scratchs_mean, "C* is looked up at scratch's own mean score.",
         "C* is the budget at which scratch scores what the student scores."),
        (the_difference, "C* is looked up at the difference instead of the score.",
         "C* is the budget at which scratch scores what the student scores.")],
    "worth": [
        (lambda star, C, curve: C / star, "The multiplier is upside down.",
         "kappa = C* / C is above 1 where the student is ahead."),
        (lambda star, C, curve: star, "The third number is C* instead of C* / C.",
         "Divide by the budget C that both spent."),
        (lambda star, C, curve: star - C, "The multiplier is a difference of budgets.", RATIO),
        (lambda star, C, curve: star / C - 1, "1 is subtracted from the multiplier.", RATIO),
        (lambda star, C, curve: 100 * star / C, "The multiplier is in percent.", RATIO),
        (lambda star, C, curve: math.log10(star / C), "The multiplier is a logarithm.", RATIO),
        (lambda star, C, curve: math.log(star / C), "The multiplier is a logarithm.", RATIO),
        (lambda star, C, curve: math.sqrt(star / C), "The multiplier is a root.", RATIO),
        (lambda star, C, curve: star / curve[0][0],
         "C* is divided by the curve's first budget.",
         "Divide by the budget C that both spent.")],
    "order": [
        (order, "The three numbers are in another order.", IN_THIS_ORDER)
        for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0))]}

mistakes = Mistakes()
pairs = mistakes.add_parts(answer, PARTS)


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
def not_paired_normal(student, scratch, curve, C):
    """The scores are not paired, and the factor is the normal distribution's 1.96.

    Take the spread of the differences, not of the two groups, and Student's t."""
    m, _, kappa = isoflop(student, scratch, curve, C)
    return m, 1.96 * spread_of_two_groups(student, scratch) / math.sqrt(len(student)), kappa


@mistakes.add
def both_spreads_added(student, scratch, curve, C):
    """The scores are not paired, and the two spreads are added.

    Scores of one seed rise and fall together. Take the spread of the differences, not of the two
    groups."""
    m, _, kappa = isoflop(student, scratch, curve, C)
    return m, half_interval(stdev(student) + stdev(scratch), len(student)), kappa


@mistakes.add
def difference_of_spreads(student, scratch, curve, C):
    """The spread is the difference of the two spreads.

    Take the spread of the differences, not the difference of the spreads."""
    m, _, kappa = isoflop(student, scratch, curve, C)
    return m, half_interval(stdev(student) - stdev(scratch), len(student)), kappa


@mistakes.add
def both_ends(student, scratch, curve, C):
    """The first two numbers are the ends of the interval.

    The answer is (mean, half, kappa): the interval is mean +- half."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m - half, m + half, kappa


@mistakes.add
def ratio_of_scores(student, scratch, curve, C):
    """The multiplier is the ratio of the scores.

    kappa compares FLOPs, not scores."""
    m, half, _ = isoflop(student, scratch, curve, C)
    return m, half, mean(student) / mean(scratch)


@mistakes.add
def mean_of_ratios(student, scratch, curve, C):
    """The multiplier is the mean ratio of the scores.

    kappa compares FLOPs, not scores."""
    m, half, _ = isoflop(student, scratch, curve, C)
    return m, half, mean(a / b for a, b in zip(student, scratch))


@mistakes.add
def budget_of_each_seed(student, scratch, curve, C):
    """C* is the mean of the budgets of the single scores.

    Take the mean of the scores first, and then one C*."""
    m, half, _ = isoflop(student, scratch, curve, C)
    last_budget, highest = curve[-1]
    budgets = [straight(curve, score) if score <= highest else last_budget for score in student]
    return m, half, mean(budgets) / C


@mistakes.add
def scratch_read_off_too(student, scratch, curve, C):
    """C* is divided by the budget that the curve gives for scratch's own mean.

    Scratch spent C: divide by that."""
    m, half, _ = isoflop(student, scratch, curve, C)
    return m, half, straight(curve, mean(student)) / straight(curve, mean(scratch))


@mistakes.add
def relative(student, scratch, curve, C):
    """The first number is relative to scratch.

    m is the mean of the differences, in points."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return m / mean(scratch), half, kappa


@mistakes.add
def relative_in_percent(student, scratch, curve, C):
    """The first number is relative to scratch, in percent.

    m is the mean of the differences, in points."""
    m, half, kappa = isoflop(student, scratch, curve, C)
    return 100 * m / mean(scratch), half, kappa


@mistakes.add
def students_mean_first(student, scratch, curve, C):
    """The first number is the student's mean score.

    m is the mean of the differences from scratch."""
    _, half, kappa = isoflop(student, scratch, curve, C)
    return mean(student), half, kappa


def rounded(digits):
    """The right answer with few digits."""
    def mistaken(student, scratch, curve, C):
        return tuple(round(x, digits) for x in isoflop(student, scratch, curve, C))
    return mistaken


mistakes += [Mistake("The numbers are rounded.", rounded(digits),
                     "Round where you print, and not where you compute.")
             for digits in (0, 1, 2, 3)]


ISOFLOP = Exercise(
    file="8_isoflop.py", function="isoflop", right=isoflop, cases=cases, mistakes=mistakes,
    pairs=pairs, install=install, parts=("mean", "half", "kappa"), tests=(
        "test_statistics.py::test_the_interval_is_scipys",
        "test_statistics.py::test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference",
        "test_statistics.py::test_the_compute_multiplier_is_read_off_scratchs_own_curve"))
