"""Exercise 8: the comparison at equal compute."""
import math
from functools import partial
from statistics import linear_regression, mean, pstdev, stdev
from typing import Callable, NamedTuple

from measure import statistics
from measure.statistics import t_975

from .exercise import Case, Exercise, wrong_parts

INTERVAL, COMPUTE_MULTIPLIER = statistics.interval, statistics.compute_multiplier  # project's own


def isoflop(student, scratch, curve, C):
    """The right answer: (mean difference, half of its interval, compute multiplier)."""
    m, half = INTERVAL(differences(student, scratch))
    _, kappa = COMPUTE_MULTIPLIER(curve, C, mean(student))
    return m, half, kappa


def differences(student, scratch):
    return [a - b for a, b in zip(student, scratch)]


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
# What the answer is made of

# The spread: (student, scratch) -> a number


def spread_of_differences(student, scratch):
    return stdev(differences(student, scratch))


def spread_divided_by_n(student, scratch):
    return pstdev(differences(student, scratch))


def spread_of_two_groups(student, scratch):
    """The standard deviation of a difference of values that are not paired."""
    return math.sqrt(stdev(student) ** 2 + stdev(scratch) ** 2)


# The scores between the points of the curve: (curve, score) -> a budget


def straight(curve, score, budget=math.log, back=math.exp, scale=float):
    """C* on straight lines between neighbouring points of (budget(C), scale(score))."""
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 <= score <= s1:
            share = (scale(score) - scale(s0)) / (scale(s1) - scale(s0))
            return back(budget(C0) + share * (budget(C1) - budget(C0)))
    return math.nan


def first_piece(curve, score):
    (C0, s0), (C1, s1) = curve[:2]
    return C0 * (C1 / C0) ** ((score - s0) / (s1 - s0))


def least_squares(curve, score):
    slope, intercept = linear_regression([math.log(C) for C, _ in curve], [s for _, s in curve])
    return math.exp((score - intercept) / slope)


# The score at which the curve is read: (student, scratch, curve) -> a score


def the_difference(student, scratch, curve):
    """m, or an end of the curve where m lies beyond it."""
    return min(curve[-1][1], max(curve[0][1], mean(student) - mean(scratch)))


class Parts(NamedTuple):
    """What the answer is made of. With these parts it is right."""
    center: Callable = mean
    spread: Callable = spread_of_differences
    factor: Callable = lambda n: t_975(n - 1) / math.sqrt(n)
    line: Callable = straight
    score: Callable = lambda student, scratch, curve: mean(student)
    worth: Callable = lambda star, C: star / C
    change: Callable = lambda m, half, kappa, student, scratch: (m, half, kappa)


def isoflop_of(student, scratch, curve, C, parts=Parts()):
    m = parts.center(differences(student, scratch))
    half = parts.factor(len(student)) * parts.spread(student, scratch)
    star = parts.line(curve, parts.score(student, scratch, curve))
    return parts.change(m, half, parts.worth(star, C), student, scratch)


# --------------------------------------------------------------------------------------------------
# Known mistakes

INTERVAL_IS = "The interval is m +- t s / sqrt(n), with t_975(n - 1)."
OF_DIFFERENCES = ("Scores of one seed rise and fall together. Take the spread of the differences, "
                  "not of the two groups.")
UNCERTAIN = "With few seeds s itself is uncertain. Use Student's t, which is 4.3 for three seeds."
TAKEN_FROM = "s^2 is divided by n - 1, since the mean was taken from the same numbers."
N_MINUS_1 = "There are n - 1 degrees of freedom."
OF_A_MEAN = "The spread of a mean is s / sqrt(n)."
LINES = ("The score is a straight line over the logarithm of the budget, between the two "
         "neighbouring points.")
BASES = "What log10 has made 10 ** undoes, and what log has made exp undoes."
RATIO = "kappa = C* / C, a ratio of budgets, which is 1 where both strategies are equal."
LOOKED_UP = "C* is the budget at which scratch scores what the student scores."
FIRST_IS = "m is the mean of the differences from scratch, in points."
ROWS = [
    (dict(center=lambda x: -mean(x)), "The difference is scratch minus student.",
     "x_i = student_i - scratch_i is positive where the student is ahead."),
    (dict(center=sum), "The first number is the sum of the differences instead of the mean.",
     "m = 1/n sum_i x_i."),
    (dict(center=lambda x: abs(mean(x))), "The first number has no sign.",
     "m is negative where the student is behind."),
    (dict(spread=lambda student, scratch: stdev(student)),
     "The spread is that of the student's scores.", OF_DIFFERENCES),
    (dict(spread=spread_of_two_groups), "The scores are not paired.", OF_DIFFERENCES),
    (dict(spread=spread_of_two_groups, factor=lambda n: t_975(2 * n - 2) / math.sqrt(n)),
     "The scores are not paired, and there are 2 n - 2 degrees of freedom.", OF_DIFFERENCES),
    (dict(spread=spread_of_two_groups, factor=lambda n: 1.96 / math.sqrt(n)),
     "The scores are not paired, and the factor is the normal distribution's 1.96.",
     f"{OF_DIFFERENCES} {UNCERTAIN}"),
    (dict(spread=lambda student, scratch: stdev(student) + stdev(scratch)),
     "The scores are not paired, and the two spreads are added.", OF_DIFFERENCES),
    (dict(spread=spread_divided_by_n), "The spread is divided by n.", TAKEN_FROM),
    (dict(spread=lambda student, scratch: spread_of_differences(student, scratch) ** 2),
     "The variance is taken for the standard deviation.", "s is the root of s^2."),
    (dict(factor=lambda n: 1.96 / math.sqrt(n)),
     "The factor is the normal distribution's 1.96.", UNCERTAIN),
    (dict(spread=spread_divided_by_n, factor=lambda n: 1.96 / math.sqrt(n)),
     "The factor is the normal distribution's 1.96, and the spread is divided by n.",
     f"{UNCERTAIN} {TAKEN_FROM}"),
    (dict(spread=spread_divided_by_n, factor=lambda n: t_975(n - 1)),
     "The spread is divided by n, and the division by sqrt(n) is missing.",
     f"{TAKEN_FROM} {OF_A_MEAN}"),
    (dict(factor=lambda n: 2 / math.sqrt(n)), "The factor is 2.", UNCERTAIN),
    (dict(factor=lambda n: t_975(n) / math.sqrt(n)),
     "Student's t is taken with n degrees of freedom.", N_MINUS_1),
    (dict(factor=lambda n: t_975(2 * n - 2) / math.sqrt(n)),
     "Student's t is taken with 2 n - 2 degrees of freedom.",
     "That is the test of two groups. The n differences are one group: n - 1."),
    (dict(factor=lambda n: 1 / math.sqrt(n)),
     "The factor t is missing: the second number is a standard error.", INTERVAL_IS),
    (dict(factor=lambda n: t_975(n - 1)), "The division by sqrt(n) is missing.", OF_A_MEAN),
    (dict(factor=lambda n: t_975(n - 1) / math.sqrt(n - 1)),
     "The spread is divided by sqrt(n - 1).", f"{OF_A_MEAN} And n - 1 is inside s already."),
    (dict(factor=lambda n: t_975(n - 1) / n), "The spread is divided by n instead of its root.",
     OF_A_MEAN),
    (dict(factor=lambda n: 2 * t_975(n - 1) / math.sqrt(n)),
     "The second number is the whole width of the interval.",
     "Half of the interval is asked for: the interval is m +- half."),
    (dict(line=partial(straight, budget=float, back=float)),
     "The curve is a straight line over the FLOPs.",
     "It is one over the logarithm of the budget, since budgets are compared by their ratios."),
    (dict(line=partial(straight, scale=math.log)), "The logarithm is taken of the scores, too.",
     LINES),
    (dict(line=partial(straight, budget=math.log10)), "Logarithms of two bases are mixed.", BASES),
    (dict(line=partial(straight, back=lambda x: 10 ** min(x, 300))),
     "Logarithms of two bases are mixed.", BASES),
    (dict(line=lambda curve, score: min(curve, key=lambda point: abs(point[1] - score))[0]),
     "C* is the nearest point of the curve.", LINES),
    (dict(line=lambda curve, score: next(C for C, s in curve if s >= score)),
     "C* is the first point of the curve that scores as much.", LINES),
    (dict(line=lambda curve, score: straight([curve[0], curve[-1]], score)),
     "One line goes through the first and the last point.", LINES),
    (dict(line=first_piece), "The line is always that through the first two points.", LINES),
    (dict(line=least_squares), "One line of least squares goes through all points.", LINES),
    (dict(score=lambda student, scratch, curve: mean(scratch)),
     "C* is looked up at scratch's own mean score.", LOOKED_UP),
    (dict(score=the_difference), "C* is looked up at the difference instead of the score.",
     LOOKED_UP),
    (dict(worth=lambda star, C: C / star), "The multiplier is upside down.",
     "kappa = C* / C is above 1 where the student is ahead."),
    (dict(worth=lambda star, C: star), "The third number is C* instead of C* / C.",
     "Divide by the budget C that both spent."),
    (dict(line=partial(straight, budget=math.log10, back=float)),
     "C* is left as its logarithm.", "10 ** undoes what log10 has made, and exp what log has."),
    (dict(worth=lambda star, C: star - C), "The multiplier is a difference of budgets.", RATIO),
    (dict(worth=lambda star, C: star / C - 1), "1 is subtracted from the multiplier.", RATIO),
    (dict(worth=lambda star, C: math.log10(star / C)), "The multiplier is a logarithm.", RATIO),
    (dict(worth=lambda star, C: math.log(star / C)), "The multiplier is a logarithm.", RATIO),
    (dict(change=lambda m, half, kappa, student, scratch: (
        m, half, mean(student) / mean(scratch))),
     "The multiplier is the ratio of the scores.", "kappa compares FLOPs, not scores."),
    (dict(change=lambda m, half, kappa, student, scratch: (mean(student), half, kappa)),
     "The first number is the student's mean score.", FIRST_IS),
    (dict(change=lambda m, half, kappa, student, scratch: (m / mean(scratch), half, kappa)),
     "The first number is relative to scratch.", FIRST_IS),
    (dict(change=lambda m, half, kappa, student, scratch: (m - half, m + half, kappa)),
     "The first two numbers are the ends of the interval.",
     "The answer is (mean, half, kappa): the interval is mean +- half."),
    *((dict(change=lambda *numbers, order=order: tuple(numbers[i] for i in order)),
       "The three numbers are in another order.",
       "The answer is (mean, half, kappa), in this order.")
      for order in ((1, 0, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0))),
    *((dict(change=lambda *numbers, digits=digits: tuple(round(x, digits) for x in numbers[:3])),
       "The numbers are rounded.", "Round where you print, and not where you compute.")
      for digits in (0, 1, 2, 3))]

ISOFLOP = Exercise(
    file="8_isoflop.py", function="isoflop", right=isoflop, cases=cases,
    mistakes=wrong_parts(isoflop_of, Parts(), ROWS), install=install,
    parts=("mean", "half", "kappa"), tests=(
        "test_statistics.py::test_the_interval_is_scipys",
        "test_statistics.py::test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference",
        "test_statistics.py::test_the_compute_multiplier_is_read_off_scratchs_own_curve"))
