"""measure/statistics.py: intervals and tests against SciPy, the multiplier on a small curve."""
import math

import numpy as np
import pytest
import scipy.stats

import compare
from measure import statistics


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_is_scipys(seed):
    values = np.random.default_rng(seed).normal(3, 2, size=2 + seed * 5).tolist()
    mean, half = statistics.interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values),
                                       scale=scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_both_p_values_are_scipys(seed):
    differences = np.random.default_rng(seed).normal(1.0, 1.5, size=4 + seed).tolist()
    p, equal_p = statistics.p_values(differences)
    assert p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, rel=1e-9)
    one_sided = [scipy.stats.ttest_1samp(differences, bound, alternative=side).pvalue
                 for bound, side in ((-3, "greater"), (3, "less"))]
    assert equal_p == pytest.approx(min(1, 2 * max(one_sided)), rel=1e-9)
    mean, half = statistics.interval(differences)
    assert (equal_p < 0.05) == (abs(mean) + half < 3)


@pytest.mark.parametrize("differences, found", [
    ([0.0, 0.0], (1.0, 0.0)), ([2.0, 2.0], (0.0, 0.0)), ([4.0, 4.0], (0.0, 1.0)),
    ([2.0], (None, None))])
def test_equal_differences_are_certain_and_one_difference_is_no_test(differences, found):
    assert statistics.p_values(differences) == found


@pytest.mark.parametrize("seed", range(8))
def test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference(seed):
    rng = np.random.default_rng(seed)
    scratch = rng.normal(50, 5, size=4)
    student = scratch + rng.normal(2.0, 1.5, size=4)
    verdict = compare.judge({"kd": (student - scratch).tolist()})["kd"].verdict
    is_significant = scipy.stats.ttest_rel(student, scratch).pvalue < 0.05
    assert (verdict in ("ahead", "behind")) == is_significant
    assert not is_significant or (verdict == "ahead") == (student.mean() > scratch.mean())


@pytest.mark.parametrize("p_values, corrected", [
    # by hand: 0.01 x 4; 0.02 x 3; 0.03 x 2, 0.04 x 1, neither below 0.06
    ([0.04, 0.01, 0.03, 0.02], [0.06, 0.04, 0.06, 0.06]),
    ([0.5, 0.6], [1.0, 1.0]), ([0.03], [0.03]), ([], []),
    ([0.01, None, 0.02], [0.02, None, 0.02])])
def test_holms_correction(p_values, corrected):
    assert statistics.holm(p_values) == pytest.approx(corrected)


def test_holm_keeps_the_chance_of_any_wrong_verdict_at_5_percent():
    rng, families = np.random.default_rng(0), 4000
    p_values = rng.uniform(size=(families, 6))  # of tests where nothing differs
    wrong = sum(min(statistics.holm(family.tolist())) < 0.05 for family in p_values)
    uncorrected = sum(family.min() < 0.05 for family in p_values)
    assert wrong / families == pytest.approx(0.05, abs=0.01)
    assert uncorrected / families > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_95_percent_of_the_intervals_cover_the_truth_although_scores_are_switches(share):
    """A student's score is the mean of three tasks, each near 50 without its skill and near 85 with
    it. Twelve students of two kinds are paired by seed."""
    rng, n, studies = np.random.default_rng(0), 12, 5000

    def scores(share):
        has_skill = rng.uniform(size=(studies, n, 3)) < share
        return (np.where(has_skill, 85, 50) + rng.normal(0, 2, size=has_skill.shape)).mean(2)
    differences = scores(share) - scores(0.5)
    truth = (share - 0.5) * 35
    covered = 0
    for row in differences:
        mean, half = statistics.interval(row.tolist())
        covered += abs(mean - truth) <= half
    assert covered / studies == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("k, n, low, high", [
    # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96
    (0, 12, 0.0, 0.2425), (7, 12, 0.3195, 0.8067), (12, 12, 0.7575, 1.0),
    (50, 200, 0.1950, 0.3144)])
def test_wilsons_interval_stays_between_0_and_1(k, n, low, high):
    assert statistics.wilson(k, n) == pytest.approx((low, high), abs=1e-4)


CURVE = [(1e12, 40.0), (1e13, 60.0), (1e14, 70.0)]
DENTED = [(1e12, 40.0), (1e13, 60.0), (1e14, 50.0), (1e15, 80.0)]


@pytest.mark.parametrize("curve, C, score, sign, kappa", [
    (CURVE, 1e12, 60.0, "=", 10.0),           # scratch reaches 60 with 1e13: ten times 1e12
    (CURVE, 1e12, 50.0, "=", math.sqrt(10)),  # half way between 40 and 60, on a logarithmic axis
    (CURVE, 1e13, 65.0, "=", math.sqrt(10)),
    (CURVE, 1e13, 50.0, "=", 1 / math.sqrt(10)),
    (CURVE, 1e12, 40.0, "=", 1.0),
    (CURVE, 1e13, 75.0, ">", 10.0),           # scratch never reaches it, not even with 1e14
    (CURVE, 1e13, 30.0, "<", 0.1),            # below all that was measured
    (CURVE[::-1], 1e12, 50.0, "=", math.sqrt(10)),  # the points may come in any order
    (DENTED, 1e12, 55.0, "=", 10 ** 0.75)])   # the first crossing counts
def test_the_compute_multiplier_is_read_off_scratchs_own_curve(curve, C, score, sign, kappa):
    assert statistics.compute_multiplier(curve, C, score) == (sign, pytest.approx(kappa))


@pytest.mark.parametrize("teacher, kappa, students", [
    # Each student saves (3 - 1) 1e13 FLOPs. Five of them pay for a teacher of 1e14.
    (1e14, 3.0, 5), (1.1e14, 3.0, 6), (1e14, 0.9, None), (1e14, 1.0, None), (0, 3.0, None)])
def test_a_teacher_pays_off_from_so_many_students_on(teacher, kappa, students):
    assert statistics.break_even(teacher, kappa, 1e13) == students
