"""reporting/answer.py: the first page follows from the verdicts, and says no more than they do."""
import pytest
from test_report import make_study

from reporting import answer, findings


def section_of(args, outcomes):
    """The first page, in one line."""
    rows = findings.rows_of(args, outcomes)
    pooled, beside = findings.pooled_of(args, rows), findings.controls_of(args, outcomes)
    sentences = answer.answer(args, rows, pooled, beside)
    return " ".join(answer.section(args, sentences, pooled))


def change(outcomes, points, **kind):
    """Adds points, a number or one for each seed, to the scores of the cells of one kind."""
    for cell, outcome in outcomes.items():
        if all(getattr(cell, key) == value for key, value in kind.items()):
            gain = points[cell.seed] if isinstance(points, tuple) else points
            outcome["results"]["entailment"]["score"]["test"][0] += gain / 100


def remove(outcomes, is_gone):
    for cell in [cell for cell in outcomes if is_gone(cell)]:
        del outcomes[cell]


# --------------------------------------------------------------------------------------------------
# The sentences

def test_there_is_a_sentence_for_each_data_setting_and_one_on_what_they_mean(tmp_path):
    args, outcomes = make_study(tmp_path, gain=0.0)
    change(outcomes, (5.0, 5.05, 5.1), strategy="kd")
    assert section_of(args, outcomes).startswith(
        "With unlimited data, **kd scores 5.0 ± 0.1 points more than scratch**. "
        "With 20,000 distinct tokens, **kd scores 5.0 ± 0.1 points more than scratch**. "
        "So, if you have a teacher, distil with kd. To train the teacher first costs as much as "
        "100 students of 1.00e12 or 10 students of 1.00e13.")


def test_one_budget_says_the_teachers_price_in_students(tmp_path):
    args, outcomes = make_study(tmp_path)
    args.budgets = args.budgets[:1]
    page = section_of(args, outcomes)
    # A teacher of 1e14 FLOPs, and students of 1e12.
    assert "To train the teacher first costs as much as 100 students." in page
    assert "Points of the score, at 1.00e12 FLOPs, with" in page


@pytest.mark.parametrize("ratio, words", [
    (33.3, "33 students"), (1.4, "1.4 students"), (1234.0, "1,234 students"),
    (0.96, "0.96 of a student"), (3e-5, "less than a hundredth of a student")])
def test_the_teachers_price_in_words(ratio, words):
    assert answer.in_students(ratio) == words


def test_a_strategy_is_advised_where_it_is_ahead_and_nowhere_else(tmp_path):
    args, outcomes = make_study(tmp_path, gain=0.0)
    change(outcomes, (5.0, 5.1, 5.2), strategy="kd", unique_tokens=None)
    change(outcomes, (-9.8, -9.9, -9.7), strategy="kd", unique_tokens=20000)
    assert ("So, with unlimited data, if you have a teacher, distil with kd; with 20,000 distinct "
            "tokens, pretrain from scratch, and save yourself the teacher.") in section_of(
                args, outcomes)


def test_a_null_result_is_an_answer_too(tmp_path):
    page = section_of(*make_study(tmp_path, gain=0.0))
    assert "**kd and scratch are equal within 3 points** (0.0 ± 0.0)" in page
    assert "So, pretrain from scratch, and save yourself the teacher." in page


def test_what_may_still_be_ahead_is_named_beside_what_is_behind(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), gain=0.0)
    change(outcomes, -20, strategy="tinybert")
    change(outcomes, (20, 5, 1), strategy="kd", flops=10 ** 12)
    assert "So, nothing here speaks for tinybert, and kd is still open." in section_of(
        args, outcomes)


def test_a_single_seed_is_open_and_no_null_result(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), gain=0.0)
    remove(outcomes, lambda cell: cell.strategy == "kd" and cell.seed > 0)
    page = section_of(args, outcomes)
    assert "nothing here speaks for tinybert, and kd is still open" in page
    assert "kd, unlimited data**: one seed: no verdict (0.0 points; n = 1)" in page


def test_what_is_not_resolved_asks_for_more_seeds(tmp_path):
    page = section_of(*make_study(tmp_path, seeds=1))
    assert "With unlimited data, kd (5.0) is not told apart from scratch." in page
    assert "So, more seeds are needed before this says what to do." in page


def test_scratch_alone_is_compared_with_nothing_and_has_no_figure(tmp_path):
    page = section_of(*make_study(tmp_path, ("scratch",)))
    assert page.strip() == "Only scratch was run: there is nothing to compare it with."


def test_students_without_a_partner_are_told_so(tmp_path):
    args, outcomes = make_study(tmp_path)
    remove(outcomes, lambda cell: (cell.strategy == "kd") == (cell.seed == 0))
    assert section_of(args, outcomes).startswith("No student has a partner from scratch")


# --------------------------------------------------------------------------------------------------
# Differences that change with the budget

def reversed_study(folder):
    """kd is 8 points ahead at the smaller budget and 10 behind at the larger one, where data is
    unlimited, and as good as scratch elsewhere. tinybert is 4 behind, and minilm 4 ahead,
    everywhere."""
    args, outcomes = make_study(folder, ("scratch", "kd", "tinybert", "minilm"), gain=0.0)
    for strategy, points in (("tinybert", (-4.0, -4.1, -3.9)), ("minilm", (4.0, 4.1, 3.9))):
        change(outcomes, points, strategy=strategy)
    change(outcomes, (8.0, 8.1, 7.9), strategy="kd", unique_tokens=None, flops=10 ** 12)
    change(outcomes, (-10.1, -10.0, -9.9), strategy="kd", unique_tokens=None, flops=10 ** 13)
    return args, outcomes


def test_a_difference_that_changes_with_the_budget_is_told_by_its_ends(tmp_path):
    assert section_of(*reversed_study(tmp_path)).startswith(
        "With unlimited data, the difference to scratch changes with the budget: **kd's falls from "
        "8.0 ± 0.2 points at 1.00e12 FLOPs to -10.0 ± 0.2 at 1.00e13**; over all budgets, "
        "**tinybert scores 4.0 ± 0.2 points less than scratch** and **minilm scores 4.0 ± 0.2 "
        "points more than scratch**. With 20,000 distinct tokens, **kd and scratch are equal ")


def test_then_each_budget_has_advice_of_its_own_and_the_same_advice_is_given_once(tmp_path):
    assert ("So, with unlimited data at 1.00e12 FLOPs, if you have a teacher, distil with kd or "
            "minilm; with unlimited data at 1.00e13 FLOPs and 20,000 distinct tokens, if you have "
            "a teacher, distil with minilm. To train") in section_of(*reversed_study(tmp_path))


def test_a_change_stands_beside_the_pooled_difference(tmp_path):
    page = section_of(*reversed_study(tmp_path))
    assert "*Change* is the difference at the largest budget less that at the smallest" in page
    assert "- **kd, unlimited data**: behind scratch (-1.0 ± 0.1 points; n = 3; p" in page
    # By seed: -10.1 - 8.0, -10.0 - 8.1 and -9.9 - 7.9.
    assert "; change -18.0 ± 0.4 (n = 3; p" in page


def test_one_budget_has_no_change(tmp_path):
    args, outcomes = make_study(tmp_path)
    args.budgets = args.budgets[:1]
    assert "hange" not in section_of(args, outcomes)


# --------------------------------------------------------------------------------------------------
# Copied layers

@pytest.mark.parametrize("ahead, words", [
    (["tinybert", "minilm"], "distil with tinybert or minilm"),
    (["scratch-copied", "minilm"], "begin with layers copied from it (scratch-copied): no "
     "distillation is seen to give more than those"),
    (["tinybert", "minilm", "scratch-copied", "kd-copied"],
     "distil with tinybert, or begin with layers copied from it (scratch-copied): no other is "
     "seen to give more than those")])
def test_distilling_is_advised_where_it_gives_more_than_copied_layers(ahead, words):
    verdicts = {"tinybert": "ahead of scratch", "minilm": "behind scratch",
                "kd-copied": "not told apart from scratch with 12 seeds"}
    beside = [{"strategy": strategy, "control": "scratch-copied", "verdict": verdict}
              for strategy, verdict in verdicts.items()]
    assert answer.what_to_distil(ahead, beside) == words


def test_copied_layers_are_compared_in_the_data_setting_that_the_advice_is_for(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "scratch-copied"), gain=0.0)
    change(outcomes, (5.0, 5.1, 5.2), strategy="scratch-copied")
    change(outcomes, (8.0, 8.2, 8.1), strategy="kd", unique_tokens=None)
    change(outcomes, (2.0, 2.1, 2.2), strategy="kd", unique_tokens=20000)
    page = section_of(args, outcomes)
    assert "with unlimited data, if you have a teacher, distil with kd, or begin with" in page
    assert "with 20,000 distinct tokens, if you have a teacher, begin with layers copied" in page


def test_what_beats_copied_layers_at_one_budget_alone_does_not_beat_them():
    beside = [{"strategy": "kd", "control": "scratch-copied", "verdict": verdict}
              for verdict in ("ahead of scratch", "not told apart from scratch with 3 seeds")]
    assert answer.beats("kd", beside[:1]) and not answer.beats("kd", beside)


# --------------------------------------------------------------------------------------------------
# How many students it rests on

def test_each_line_says_how_many_pairs_it_rests_on_and_how_sure_it_is(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), seeds=7)
    remove(outcomes, lambda cell: cell.strategy == "tinybert" and cell.seed > 3)
    page = section_of(args, outcomes)
    assert "- **kd, unlimited data**: ahead of scratch (5.2 ± 0.1 points; n = 7; p < 0.001)" in page
    assert "- **tinybert, unlimited data**: equal to scratch within 3 points (0.0 ± 0.0 points; " \
        "n = 4; p = 1)" in page
    assert "correction for 4 rows (Holm)" in page  # two strategies, two data settings
    assert "**Fewer than 6 pairs are a demonstration.**" in page


def test_few_pairs_are_a_demonstration_and_many_are_not(tmp_path):
    assert "**These are few: take it as a demonstration.**" in section_of(*make_study(tmp_path))
    assert "demonstration" not in section_of(*make_study(tmp_path, seeds=6))


def test_a_line_names_its_budgets_where_they_are_not_all(tmp_path):
    args, outcomes = make_study(tmp_path)
    remove(outcomes, lambda cell: cell.strategy == "kd" and cell.flops == 10 ** 13)
    page = section_of(args, outcomes)
    assert "- **kd, unlimited data, 1.00e12 FLOPs alone**: ahead of scratch (10.1 ± 0.2" in page
