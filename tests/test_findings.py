"""reporting/findings.py: rows, pooled differences, skills and spread follow from the scores."""
import math

import pytest
import scipy.stats
from test_report import make_study

from reporting import findings, report


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


def row_of(study, strategy, C):
    """The row of unlimited data."""
    return next(row for row in findings.rows_of(*study)
                if (row["strategy"], row["flops"], row["unique_tokens"]) == (strategy, C, None))


# --------------------------------------------------------------------------------------------------
# The rows

def test_differences_are_paired_by_seed(study):
    row = row_of(study, "kd", 10 ** 12)
    # Seeds differ by 3 points, the pairs by 0.1: 10.0, 10.1, 10.2. The interval is that of the
    # pairs, with Student's t for two degrees of freedom.
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert row["difference"] == pytest.approx(10.1)
    assert row["difference_half"] == pytest.approx(half, rel=1e-3)
    assert row["verdict"] == "ahead of scratch" and row["half"] > 5
    level = row_of(study, "kd", 10 ** 13)
    assert level["difference"] == 0 and level["verdict"] == "equal to scratch within 3 points"


def test_a_seed_without_a_student_from_scratch_has_no_pair(study):
    args, outcomes = study
    gone = [cell for cell in outcomes if cell.strategy == "scratch" and cell.seed == 1]
    for cell in gone:
        del outcomes[cell]
    row = row_of(study, "kd", 10 ** 12)
    assert row["seeds"] == 3 and row["pairs"] == 2
    assert row["difference"] == pytest.approx(10.1)  # the mean of 10.0 and 10.2


def test_the_multiplier_is_read_off_scratchs_curve(study):
    # Scratch has 43 points at 1e12 and 63 at 1e13, in the mean; kd has 10.1 more at 1e12.
    row = row_of(study, "kd", 10 ** 12)
    assert row["multiplier"] == ("=", pytest.approx(10 ** (10.1 / 20)))
    assert row_of(study, "scratch", 10 ** 12)["multiplier"] is None


def test_the_multiplier_agrees_with_the_verdict_where_one_kind_has_fewer_seeds(study):
    args, outcomes = study
    for cell in [cell for cell in outcomes if cell.strategy == "kd" and cell.seed > 0]:
        del outcomes[cell]
    # The one student of kd has 50 points: 10 more than its partner, 7 more than scratch's mean.
    assert row_of(study, "kd", 10 ** 12)["multiplier"] == ("=", pytest.approx(10 ** (10 / 20)))


def test_one_budget_has_no_multiplier(study):
    args, outcomes = study
    args.budgets = [10 ** 12]
    assert row_of(study, "kd", 10 ** 12)["multiplier"] is None


def test_students_without_an_mlm_head_have_no_loss(study):
    args, outcomes = study
    for cell, outcome in outcomes.items():
        if cell.strategy == "kd":
            outcome["record"]["val_loss"] = None
    row = row_of(study, "kd", 10 ** 12)
    assert row["val_loss"] is None and row["loss_by_seed"] == {} and not row["plateau"]
    assert "| no head |" in report.rows_table(findings.rows_of(*study), ["entailment"])


def test_one_student_on_the_plateau_marks_the_row(study):
    args, outcomes = study
    cell = next(cell for cell in outcomes if cell.strategy == "kd")
    outcomes[cell]["record"]["val_loss"] = 3.9  # of 4.0, the unigram loss
    assert row_of(study, "kd", 10 ** 12)["plateau"]
    assert not row_of(study, "kd", 10 ** 13)["plateau"]


def test_the_exit_from_the_plateau_is_the_median_of_the_students_that_left_it(tmp_path):
    args, outcomes = make_study(tmp_path, seeds=4)
    exits = iter((1e11, 2e11, 9e11, None))
    for cell, outcome in outcomes.items():
        if (cell.strategy, cell.flops, cell.unique_tokens) == ("kd", 10 ** 12, None):
            outcome["record"]["left_plateau_at"] = next(exits)
    row = row_of((args, outcomes), "kd", 10 ** 12)
    assert (row["exit"], row["exits"]) == (2e11, 3)


def test_equality_is_corrected_for_how_many_are_given(tmp_path):
    # Differences of -1.6 and 3.9 points in turns: by SciPy's two one-sided tests 2 p = 0.047.
    args, outcomes = make_study(tmp_path, seeds=12, gain=0.0)
    for cell, outcome in outcomes.items():
        if cell.strategy == "kd":
            gain = -0.016 if cell.seed % 2 else 0.039
            outcome["results"]["entailment"]["score"]["test"][0] += gain
    assert row_of((args, outcomes), "kd", 10 ** 12)["verdict"].startswith("not told apart")
    args.budgets, args.unique_tokens = [10 ** 12], [None]  # one verdict instead of four
    assert row_of((args, outcomes), "kd", 10 ** 12)["verdict"].startswith("equal")


def test_verdicts_are_corrected_for_how_many_are_given(study):
    rows = [row for row in findings.rows_of(*study) if row["strategy"] == "kd"]
    differences = [10.0, 10.1, 10.2]
    p = scipy.stats.ttest_1samp(differences, 0).pvalue
    # Four verdicts: the smallest p-value counts four times.
    assert rows[0]["p"] == pytest.approx(p) and rows[0]["corrected_p"] == pytest.approx(4 * p)


# --------------------------------------------------------------------------------------------------
# Over all budgets

def test_the_pooled_difference_is_that_of_each_seeds_mean_over_the_budgets(study):
    args, outcomes = study
    [unlimited, limited] = findings.pooled_of(args, findings.rows_of(args, outcomes))
    # 10.0, 10.1, 10.2 points at one budget and 0 at the other
    half = 4.3027 * 0.05 / math.sqrt(3)
    assert unlimited["difference"] == pytest.approx(5.05)
    assert unlimited["difference_half"] == pytest.approx(half, rel=1e-3)
    assert unlimited["verdict"] == "ahead of scratch" and unlimited["pairs"] == 3
    assert limited["unique_tokens"] == 20000


def test_a_seed_that_lacks_a_budget_is_left_out_of_the_pooled_difference(study):
    args, outcomes = study
    cell = next(cell for cell in outcomes if cell.strategy == "kd" and cell.seed == 2
                and cell.flops == 10 ** 13)
    del outcomes[cell]
    pooled = findings.pooled_of(args, findings.rows_of(args, outcomes))[0]
    # Seeds 0 and 1 have 10.0 and 10.1 points at the smaller budget. Seed 2 has 10.2 there alone.
    assert pooled["pairs"] == 2 and pooled["difference"] == pytest.approx(5.025)


def test_budgets_that_scratch_lacks_are_left_out_of_the_pooled_difference(study):
    args, outcomes = study
    for cell in [cell for cell in outcomes if cell.strategy == "scratch"
                 and cell.flops == 10 ** 13]:
        del outcomes[cell]
    pooled = findings.pooled_of(args, findings.rows_of(args, outcomes))[0]
    assert pooled["budgets"] == [10 ** 12] and pooled["difference"] == pytest.approx(10.1)


def test_a_change_is_the_difference_at_the_largest_budget_less_that_at_the_smallest(study):
    args, outcomes = study
    [unlimited, limited] = findings.pooled_of(args, findings.rows_of(args, outcomes))
    # 10.0, 10.1 and 10.2 points at the smaller budget, and 0 at the larger one
    p = scipy.stats.ttest_1samp([-10.0, -10.1, -10.2], 0).pvalue
    change = unlimited["change"]
    assert change["difference"] == pytest.approx(-10.1) and change["pairs"] == 3
    # Two changes: the smaller p-value, here equal to the other, counts twice.
    assert change["p"] == pytest.approx(p) and change["corrected_p"] == pytest.approx(2 * p)


@pytest.mark.parametrize("verdicts, change, corrected_p, depends", [
    ("none none", -18, 0.001, True),  # the change is sure, though no end is
    ("ahead none", -18, 0.001, True),
    ("ahead none", -18, 0.06, False),  # the lead may be as large there
    ("ahead ahead", -2.5, 0.001, False),  # less than counts as a difference
    ("ahead behind ahead", 1, 0.5, True),  # the ends do not say it
    ("ahead none ahead", 1, 0.5, False)])
def test_a_difference_depends_on_the_budget_where_that_is_sure(verdicts, change, corrected_p,
                                                               depends):
    sentences = {"ahead": "ahead of scratch", "behind": "behind scratch",
                 "none": "not told apart from scratch with 12 seeds"}
    parts = [{"verdict": sentences[word]} for word in verdicts.split()]
    change = {"difference": change, "corrected_p": corrected_p}
    assert findings.depends_on_budget(parts, change) is depends


def test_a_change_needs_seeds_that_have_both_ends(study):
    args, outcomes = study
    for cell in [cell for cell in outcomes if cell.seed == 2 and cell.flops == 10 ** 13
                 and cell.strategy == "scratch" and cell.unique_tokens is None]:
        del outcomes[cell]
    [unlimited, limited] = findings.pooled_of(args, findings.rows_of(args, outcomes))
    assert (unlimited["change"]["pairs"], limited["change"]["pairs"]) == (2, 3)


def test_one_budget_has_no_change(study):
    args, outcomes = study
    args.budgets = args.budgets[:1]
    for row in findings.pooled_of(args, findings.rows_of(args, outcomes)):
        assert row["change"]["pairs"] == 0 and not row["depends"]


# --------------------------------------------------------------------------------------------------
# Skills

def with_skills(outcomes, has):
    """Sets each student's entailment score to 99 or 50 points: has(cell) says which."""
    for cell, outcome in outcomes.items():
        outcome["results"]["entailment"]["metrics"]["test"]["accuracy"][0] = \
            0.99 if has(cell) else 0.5


def test_skills_are_counted_and_compared_by_the_pairs_that_differ(tmp_path):
    args, outcomes = make_study(tmp_path, seeds=12)
    with_skills(outcomes, lambda cell: cell.strategy == "kd" and cell.seed < 9)
    rows = findings.skills_of(args, outcomes)
    kd = next(row for row in rows if row["strategy"] == "kd")
    assert (kd["k"], kd["n"]) == (9, 12)
    expected = scipy.stats.binomtest(9, 12).proportion_ci(method="wilson")
    assert kd["interval"] == pytest.approx((expected.low, expected.high), abs=1e-6)
    p = scipy.stats.binomtest(9, 9).pvalue  # nine pairs differ, all in one direction
    assert kd["p"] == pytest.approx(p) and kd["corrected_p"] == pytest.approx(4 * p)
    assert kd["told_apart"]


def test_students_without_partners_are_compared_by_fishers_test(tmp_path):
    args, outcomes = make_study(tmp_path, seeds=11)
    for cell in [cell for cell in outcomes if (cell.strategy == "kd") == (cell.seed < 6)]:
        del outcomes[cell]
    with_skills(outcomes, lambda cell: cell.strategy == "kd")
    kd = next(row for row in findings.skills_of(args, outcomes) if row["strategy"] == "kd")
    assert kd["p"] == pytest.approx(scipy.stats.fisher_exact([[5, 0], [0, 6]]).pvalue)
    assert kd["test"] == "Fisher"


def test_pairs_that_are_too_few_for_any_verdict_are_no_part_of_the_family(tmp_path):
    args, outcomes = make_study(tmp_path, seeds=6)
    for cell in [cell for cell in outcomes if cell.strategy == "kd" and cell.seed == 0
                 and cell.unique_tokens]:
        del outcomes[cell]
    with_skills(outcomes, lambda cell: cell.strategy == "kd")
    kd = [row for row in findings.skills_of(args, outcomes) if row["strategy"] == "kd"]
    assert [row["test"] for row in kd] == ["McNemar", "McNemar", None, None]
    # Six pairs differ, all in one direction: 2 / 2^6, twice.
    assert kd[0]["corrected_p"] == pytest.approx(2 * 2 / 2 ** 6) and not kd[2]["told_apart"]


def test_tasks_of_glue_have_no_skills(study):
    args, outcomes = study
    for outcome in outcomes.values():
        outcome["results"] = {"rte": outcome["results"]["entailment"]}
    assert findings.skills_of(args, outcomes) == []


# --------------------------------------------------------------------------------------------------
# Where the spread comes from

def test_kinds_of_many_students_count_more_for_the_spread(study):
    args, outcomes = study
    args.budgets, args.unique_tokens = [10 ** 12], [None]
    for cell in [cell for cell in outcomes if cell.strategy == "kd" and cell.seed == 2]:
        del outcomes[cell]
    for cell, outcome in outcomes.items():
        result = outcome["results"]["entailment"]
        result["seeds"] = 2
        result["score"]["test"] = [0.4 + 0.03 * cell.seed, 0.02 if cell.strategy == "scratch"
                                   else 0.04]
    # Three students from scratch: variance 9, of which 2^2 / 2 is fine-tuning. Two of kd: 4.5, of
    # which 4^2 / 2. They have 2 degrees of freedom and 1.
    between, within = findings.spread_of(args, outcomes)
    assert between == pytest.approx((2 * (9 - 2) + (4.5 - 8)) / 3)
    assert within == pytest.approx((2 * 4 + 16) / 3)


def test_equal_scores_have_no_spread_to_split(study):
    args, outcomes = study
    for outcome in outcomes.values():
        outcome["results"]["entailment"] |= {"seeds": 2, "score": {"test": [0.5, 0.0]}}
    assert findings.spread_of(args, outcomes) is None


# --------------------------------------------------------------------------------------------------
# What the scores lie between

def test_the_levels_are_guessing_the_unigram_loss_and_the_teacher(study):
    args, outcomes = study
    assert findings.levels_of(outcomes) == {"score": {"guessing": 50.0},
                                            "val_loss": {"plateau (unigram)": 4.0}}
    teacher = next(iter(outcomes.values()))
    levels = findings.levels_of(outcomes, teacher)
    assert levels["score"]["teacher"] == 40.0 and levels["val_loss"]["teacher"] == 1.6


def test_a_task_that_no_kind_can_do_is_named(study):
    args, outcomes = study
    rows = findings.rows_of(args, outcomes)
    assert findings.silent_tasks(rows, outcomes) == []  # 63 points of 50
    for outcome in outcomes.values():
        outcome["results"]["entailment"]["majority"]["test"]["accuracy"] = 0.63
    assert findings.silent_tasks(rows, outcomes) == ["entailment"]


@pytest.mark.parametrize("majority, score", [
    ({"accuracy": 0.6}, 0.6), ({"accuracy": 0.684, "f1": 0.812}, 0.748),  # MRPC: most are "yes"
    ({"accuracy": 0.5, "f1": 0.0}, 0.5), ({"matthews": 0.0}, 0.0)])
def test_guessing_scores_as_the_majority_answer_but_for_an_f1_of_zero(majority, score):
    result = {"score": {"dev": [0.9, None]}, "majority": {"dev": majority}}
    assert findings.guessing_score(result) == pytest.approx(score)
