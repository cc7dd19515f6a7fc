"""measure/statistics.py: intervals and verdicts against SciPy, the multiplier on a small curve."""
import math

import numpy as np
import pytest
import scipy.stats

from measure import statistics

# --------------------------------------------------------------------------------------------------
# Intervals and verdicts

@pytest.mark.parametrize("df", [*range(1, 31), 31, 40, 60, 100, 1000])
def test_the_quantiles_are_scipys(df):
    assert statistics.t_975(df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=5e-5)


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_is_scipys(seed):
    values = np.random.default_rng(seed).normal(3, 2, size=2 + seed * 5).tolist()
    mean, half = statistics.interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values),
                                       scale=scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference(seed):
    rng = np.random.default_rng(seed)
    scratch = rng.normal(50, 5, size=4)
    student = scratch + rng.normal(2.0, 1.5, size=4)
    words = statistics.verdict(*statistics.interval((student - scratch).tolist()), 4)
    is_significant = scipy.stats.ttest_rel(student, scratch).pvalue < 0.05
    is_higher = student.mean() > scratch.mean()
    assert (words == "ahead of scratch") == (is_significant and is_higher)
    assert ("not told apart" in words) == (not is_significant)


def test_one_seed_gets_no_verdict():
    assert statistics.interval([3.0]) == (3.0, None)
    assert statistics.verdict(3.0, None, 1) == "one seed: no verdict"


def test_a_student_below_its_interval_is_behind_scratch():
    assert statistics.verdict(-3.0, 1.0, 5) == "behind scratch"


def test_students_with_the_same_scores_are_not_told_apart():
    assert statistics.verdict(0, 0.0, 3) == "not told apart from scratch with 3 seeds"


# --------------------------------------------------------------------------------------------------
# What a score is worth in FLOPs

CURVE = [(1e12, 40.0), (1e13, 60.0), (1e14, 70.0)]


@pytest.mark.parametrize("C, score, sign, kappa", [
    (1e12, 60.0, "=", 10.0),               # scratch reaches 60 with 1e13: ten times 1e12
    (1e12, 50.0, "=", math.sqrt(10)),      # half way between 40 and 60, on the logarithmic axis
    (1e13, 65.0, "=", math.sqrt(10)),
    (1e13, 50.0, "=", 1 / math.sqrt(10)),
    (1e12, 40.0, "=", 1.0),
    (1e13, 75.0, ">", 10.0),               # scratch never reaches it, not even with 1e14
    (1e13, 30.0, "<", 0.1)])               # below all that was measured
def test_the_compute_multiplier_is_read_off_scratchs_own_curve(C, score, sign, kappa):
    assert statistics.compute_multiplier(CURVE, C, score) == (sign, pytest.approx(kappa))


def test_the_points_of_the_curve_may_come_in_any_order():
    shuffled = [CURVE[2], CURVE[0], CURVE[1]]
    expected = statistics.compute_multiplier(CURVE, 1e12, 55.0)
    assert statistics.compute_multiplier(shuffled, 1e12, 55.0) == expected


def test_a_dent_in_the_curve_takes_the_first_crossing():
    dented = [(1e12, 40.0), (1e13, 60.0), (1e14, 50.0), (1e15, 80.0)]
    _, kappa = statistics.compute_multiplier(dented, 1e12, 55.0)
    assert kappa == pytest.approx(10 ** 0.75)


def test_a_teacher_pays_off_from_so_many_students_on():
    # Each student saves (3 - 1) 1e13 FLOPs. Five of them pay for a teacher of 1e14, six for 1.1e14.
    assert statistics.break_even(1e14, 3.0, 1e13) == 5
    assert statistics.break_even(1.1e14, 3.0, 1e13) == 6


def test_a_teacher_whose_students_save_nothing_never_pays_off():
    assert statistics.break_even(1e14, 0.9, 1e13) is None
    assert statistics.break_even(1e14, 1.0, 1e13) is None


def test_a_teacher_that_cost_nothing_has_nothing_to_pay_off():
    assert statistics.break_even(0, 3.0, 1e13) is None
