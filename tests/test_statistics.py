"""measure/statistics.py: intervals and tests against SciPy, the multiplier on a small curve."""
import math

import numpy as np
import pytest
import scipy.stats

from measure import statistics

# --------------------------------------------------------------------------------------------------
# Student's t

@pytest.mark.parametrize("df", [*range(1, 31), 31, 40, 60, 100, 999, 1000])
def test_the_t_distribution_is_scipys(df):
    assert statistics.t_975(df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=1e-9)
    for t in (0.0, 0.3, -1.0, 2.5, 8.0, 40.0):
        expected = 2 * scipy.stats.t.sf(abs(t), df)
        assert statistics.t_p_value(t, df) == pytest.approx(expected, rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_is_scipys(seed):
    values = np.random.default_rng(seed).normal(3, 2, size=2 + seed * 5).tolist()
    mean, half = statistics.interval(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values),
                                       scale=scipy.stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_the_paired_test_is_scipys(seed):
    rng = np.random.default_rng(seed)
    scratch, student = rng.normal(50, 5, size=(2, 3 + seed))
    expected = scipy.stats.ttest_rel(student, scratch).pvalue
    assert statistics.paired_p_value((student - scratch).tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(8))
def test_the_test_of_equality_is_scipys_two_one_sided_tests(seed):
    differences = np.random.default_rng(seed).normal(1.0, 1.5, size=4 + seed).tolist()
    p_values = [scipy.stats.ttest_1samp(differences, bound, alternative=side).pvalue
                for bound, side in ((-3, "greater"), (3, "less"))]
    assert statistics.equal_p_value(differences) == pytest.approx(2 * max(p_values))
    mean, half = statistics.interval(differences)
    assert (statistics.equal_p_value(differences) < 0.05) == (abs(mean) + half < 3)


def test_differences_beyond_the_margin_are_not_equal():
    assert statistics.equal_p_value([3.1, 3.2]) == 1.0 and statistics.equal_p_value([4, 4]) == 1.0
    assert statistics.equal_p_value([1.0, 1.0]) == 0.0
    assert statistics.equal_p_value([1.0]) is None


def test_equal_differences_are_certain_and_one_difference_is_no_test():
    assert statistics.paired_p_value([0.0, 0.0]) == 1.0
    assert statistics.paired_p_value([2.0, 2.0]) == 0.0
    assert statistics.paired_p_value([2.0]) is None


# --------------------------------------------------------------------------------------------------
# Counts

@pytest.mark.parametrize("k, n", [(0, 12), (1, 12), (5, 12), (12, 12), (0, 1), (50, 200)])
def test_wilsons_interval_is_scipys(k, n):
    expected = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("k1, n1, k2, n2", [(8, 9, 1, 9), (0, 5, 5, 5), (3, 12, 7, 11),
                                            (0, 4, 0, 4), (12, 12, 12, 12), (2, 3, 40, 90)])
def test_fishers_test_is_scipys(k1, n1, k2, n2):
    expected = scipy.stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]).pvalue
    assert statistics.fisher_exact(k1, n1, k2, n2) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("first, second, both, neither", [(0, 0, 3, 3), (5, 0, 2, 1), (1, 7, 0, 4),
                                                          (4, 4, 9, 9), (10, 2, 0, 0)])
def test_mcnemars_test_is_the_binomial_test_of_the_pairs_that_differ(first, second, both, neither):
    pairs = ([(True, False)] * first + [(False, True)] * second + [(True, True)] * both
             + [(False, False)] * neither)
    n = first + second
    expected = scipy.stats.binomtest(first, n).pvalue if n else 1.0
    assert statistics.mcnemar_exact(pairs) == pytest.approx(expected, rel=1e-9)


# --------------------------------------------------------------------------------------------------
# Verdicts

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


@pytest.mark.parametrize("seed", range(8))
def test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference(seed):
    rng = np.random.default_rng(seed)
    scratch = rng.normal(50, 5, size=4)
    student = scratch + rng.normal(2.0, 1.5, size=4)
    differences = (student - scratch).tolist()
    p = statistics.paired_p_value(differences)
    words = statistics.verdict(np.mean(differences), p, 1.0, 4)
    is_significant = scipy.stats.ttest_rel(student, scratch).pvalue < 0.05
    is_higher = student.mean() > scratch.mean()
    assert (words == "ahead of scratch") == (is_significant and is_higher)
    assert (words == "behind scratch") == (is_significant and not is_higher)


@pytest.mark.parametrize("mean, p, equal_p, n, words", [
    (3.0, None, None, 1, "one seed: no verdict"),
    (-3.0, 0.001, 1.0, 5, "behind scratch"),
    (3.0, 0.001, 1.0, 5, "ahead of scratch"),
    (1.0, 0.001, 0.001, 5, "ahead of scratch"),  # by little, and surely
    (3.0, 0.08, 1.0, 5, "not told apart from scratch with 5 seeds"),
    (1.0, 0.3, 0.04, 12, "equal to scratch within 3 points"),
    (1.0, 0.3, 0.06, 12, "not told apart from scratch with 12 seeds")])
def test_the_verdicts_words(mean, p, equal_p, n, words):
    assert statistics.verdict(mean, p, equal_p, n) == words


@pytest.mark.slow
def test_equal_is_seldom_said_of_six_kinds_that_differ_by_the_margin():
    rng, studies = np.random.default_rng(0), 2000
    wrong = 0
    for _ in range(studies):
        rows = rng.normal(3.0, 2.0, size=(6, 12)).tolist()
        corrected = statistics.holm([statistics.equal_p_value(row) for row in rows])
        wrong += any(p < 0.05 for p in corrected)
    assert wrong / studies < 0.05


def test_so_few_pairs_can_never_be_told_apart_by_mcnemars_test():
    n = statistics.LEAST_PAIRS
    assert scipy.stats.binomtest(n, n).pvalue < 0.05 < scipy.stats.binomtest(n - 1, n - 1).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_95_percent_of_the_intervals_cover_the_truth_although_scores_are_switches(share):
    """A student's score is the mean of three tasks, each near 50 without its skill and near 85 with
    it. Twelve students of two kinds are paired by seed."""
    rng, n, studies = np.random.default_rng(0), 12, 20_000

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


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_95_percent_of_wilsons_intervals_cover_the_truth(share):
    """Exactly, over all counts. Counts are whole numbers, so the share jumps around 95%: Wilson's
    interval is the one whose mean over true shares is nearest to it (Agresti and Coull 1998)."""
    covered = []
    for truth in np.linspace(share - 0.05, share + 0.05, 201):
        bounds = [statistics.wilson(k, 12) for k in range(13)]
        probabilities = scipy.stats.binom.pmf(np.arange(13), 12, truth)
        covered.append(sum(p for p, (low, high) in zip(probabilities, bounds)
                           if low <= truth <= high))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


# --------------------------------------------------------------------------------------------------
# Where the spread comes from

def test_the_spread_is_split_into_pretraining_and_fine_tuning():
    rng = np.random.default_rng(0)
    students = rng.normal(60, 6, size=(4000, 1))
    groups = students + rng.normal(0, 3, size=(4000, 2))
    means, variances = groups.mean(1).tolist(), groups.var(1, ddof=1).tolist()
    between, within = statistics.shares_of_spread(means, variances, 2)
    assert (between, within) == pytest.approx((6 ** 2, 3 ** 2), rel=0.1)


def test_where_fine_tuning_is_all_of_the_spread_the_estimate_for_pretraining_is_0_in_the_mean():
    rng = np.random.default_rng(0)
    groups = 60 + rng.normal(0, 3, size=(2000, 4, 2))  # studies of four students
    between = [statistics.shares_of_spread(group.mean(1).tolist(),
                                           group.var(1, ddof=1).tolist(), 2)[0]
               for group in groups]
    assert min(between) < 0 and np.mean(between) == pytest.approx(0, abs=0.4)


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
