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
    change(outcomes, (4.9, 5.0, 5.1), strategy="kd")
    assert section_of(args, outcomes).startswith(
        "With unlimited data, **kd scores 5.0 ± 0.2 points more than scratch**. "
        "With 20,000 distinct tokens, **kd scores 5.0 ± 0.2 points more than scratch**. "
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
# Differences that depend on the budget

BUDGETS = 10 ** 12, 3 * 10 ** 12, 10 ** 13


def changing_study(folder):
    """kd loses with the budget where data is unlimited, and gains where 20,000 tokens repeat.
    tinybert is behind everywhere, and minilm ahead where data is unlimited."""
    args, outcomes = make_study(folder, ("scratch", "kd", "tinybert", "minilm"), seeds=4, gain=0.0,
                                budgets=BUDGETS)
    less, even, more = (-10.0, -10.1, -9.9, -10.0), (1.0, -1.2, 0.0, 1.0), (8.0, 8.1, 7.9, 8.0)
    four = (4.0, 4.1, 3.9, 4.0)
    for unique, gains in ((None, (more, even, less)), (20000, (less, even, more))):
        for C, points in zip(BUDGETS, gains):
            change(outcomes, points, strategy="kd", unique_tokens=unique, flops=C)
    change(outcomes, tuple(-x for x in four), strategy="tinybert")
    change(outcomes, four, strategy="minilm", unique_tokens=None)
    change(outcomes, tuple(-x for x in four), strategy="minilm", unique_tokens=20000)
    remove(outcomes, lambda cell: (cell.strategy, cell.unique_tokens, cell.flops, cell.seed)
           == ("kd", 20000, 10 ** 12, 3))
    return args, outcomes


def test_a_difference_that_depends_on_the_budget_is_told_for_each(tmp_path):
    page = section_of(*changing_study(tmp_path))
    assert page.startswith(
        "With unlimited data, the gain over scratch depends on the budget: at 1.00e12, 3.00e12 and "
        "1.00e13 FLOPs **kd's is 8.0 ± 0.1, 0.2 ± 1.7 and -10.0 ± 0.1 points**; **tinybert scores "
        "4.0 ± 0.1 points less than scratch** and **minilm scores 4.0 ± 0.1 points more than "
        "scratch**. With 20,000 distinct tokens, the gain over scratch depends on the budget: ")
    assert "A row that depends on the budget has no verdict here." in page


def test_differences_that_depend_on_the_same_budgets_are_told_together(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), gain=0.0)
    change(outcomes, (8.0, 8.1, 7.9), strategy="kd", flops=10 ** 12)
    change(outcomes, (9.0, 9.1, 8.9), strategy="tinybert", flops=10 ** 12)
    assert section_of(args, outcomes).startswith(
        "With unlimited data, the gain over scratch depends on the budget: at 1.00e12 and 1.00e13 "
        "FLOPs **kd's is 8.0 ± 0.2 and 0.0 ± 0.0 points** and **tinybert's is 9.0 ± 0.2 and 0.0 ± "
        "0.0 points**. With 20,000")


def test_then_each_budget_has_advice_of_its_own_and_the_same_advice_is_given_once(tmp_path):
    assert (
        "So, with unlimited data (1.00e12 FLOPs), if you have a teacher, distil with kd or minilm; "
        "with unlimited data (3.00e12 and 1.00e13 FLOPs), if you have a teacher, distil with "
        "minilm; with 20,000 distinct tokens (1.00e12 FLOPs), pretrain from scratch, and save "
        "yourself the teacher; with 20,000 distinct tokens (3.00e12 FLOPs), nothing here speaks "
        "for tinybert or minilm, and kd is still open; with 20,000 distinct tokens (1.00e13 "
        "FLOPs), if you have a teacher, distil with kd. To train the teacher first costs "
        ) in section_of(*changing_study(tmp_path))


def test_advice_for_a_single_budget_is_worth_the_teachers_price(tmp_path):
    # In the mean over the budgets kd is behind, and at one of them it is advised.
    args, outcomes = make_study(tmp_path, gain=0.0)
    change(outcomes, (8.0, 8.1, 7.9), strategy="kd", flops=10 ** 12)
    change(outcomes, (-10.1, -10.0, -9.9), strategy="kd", flops=10 ** 13)
    assert ("So, with unlimited data (1.00e12 FLOPs) and 20,000 distinct tokens (1.00e12 FLOPs), "
            "if you have a teacher, distil with kd; with unlimited data (1.00e13 FLOPs) and 20,000 "
            "distinct tokens (1.00e13 FLOPs), pretrain from scratch, and save yourself the "
            "teacher. To train the teacher first costs ") in section_of(args, outcomes)


def test_a_change_stands_beside_the_pooled_difference(tmp_path):
    page = section_of(*changing_study(tmp_path))
    assert "less that at its smallest. The 6 changes are corrected together, apart from" in page
    assert ("- **kd, unlimited data**: depends on the budget (mean -0.6 ± 0.6 points; n = 4); "
            "change -18.0 ± 0.3 (n = 4; p < 0.001) - **tinybert") in page
    # Seed 3 lacks the smallest budget: 8.0 + 10.0, 8.1 + 10.1 and 7.9 + 9.9 are left.
    assert "; change 18.0 ± 0.5 (n = 3; p < 0.001) - **tinybert, 20,000" in page


def test_copied_layers_are_compared_at_the_budget_that_the_advice_is_for(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "scratch-copied"), gain=0.0)
    change(outcomes, (4.0, 4.1, 3.9), strategy="scratch-copied")
    change(outcomes, (8.0, 8.2, 7.8), strategy="kd", flops=10 ** 12)
    change(outcomes, (-10.1, -10.0, -9.9), strategy="kd", flops=10 ** 13)
    page = section_of(args, outcomes)
    assert ("(1.00e12 FLOPs), if you have a teacher, distil with kd, or begin with layers copied "
            "from it (scratch-copied): no other is seen to give more than those; with ") in page
    assert ("(1.00e13 FLOPs), if you have a teacher, begin with layers copied from it "
            "(scratch-copied): no distillation is seen to give more than those.") in page


def test_one_budget_has_no_change(tmp_path):
    args, outcomes = make_study(tmp_path)
    args.budgets = args.budgets[:1]
    assert "hange" not in section_of(args, outcomes)


def test_where_a_budget_was_not_run_neither_finding_nor_advice_is_for_it(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), gain=0.0)
    change(outcomes, (4.0, 4.1, 3.9), strategy="kd")
    remove(outcomes, lambda cell: cell.unique_tokens and cell.flops == 10 ** 12)
    page = section_of(args, outcomes)
    assert ("With 20,000 distinct tokens at 1.00e13 FLOPs, **kd scores 4.0 ± 0.2 points more than "
            "scratch** and **tinybert and scratch are equal within 3 points** (0.0 ± 0.0)") in page
    assert ("So, with unlimited data and 20,000 distinct tokens (1.00e13 FLOPs), if you have a "
            "teacher, distil with kd. To") in page


def test_a_strategy_that_lacks_a_budget_is_advised_where_it_was_run(tmp_path):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), gain=0.0)
    change(outcomes, (4.0, 4.1, 3.9), strategy="kd")
    change(outcomes, (5.0, 5.1, 4.9), strategy="tinybert")
    remove(outcomes, lambda cell: (cell.strategy, cell.flops) == ("tinybert", 10 ** 12))
    page = section_of(args, outcomes)
    assert page.startswith("With unlimited data, **kd scores 4.0 ± 0.2 points more than scratch** "
                           "and **tinybert scores 5.0 ± 0.2 points more than scratch** at 1.00e13")
    assert ("So, with unlimited data (1.00e12 FLOPs) and 20,000 distinct tokens (1.00e12 FLOPs), "
            "if you have a teacher, distil with kd; with unlimited data (1.00e13 FLOPs) and 20,000 "
            "distinct tokens (1.00e13 FLOPs), if you have a teacher, distil with kd or tinybert."
            ) in page


def test_seeds_that_lack_budgets_leave_no_mean_over_them(tmp_path):
    args, outcomes = make_study(tmp_path)
    remove(outcomes, lambda cell: (cell.flops == 10 ** 12) == (cell.seed == 0))
    assert section_of(args, outcomes).startswith("No seed has all budgets: ")


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
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "tinybert"), seeds=7, gain=0.0)
    change(outcomes, (5.0, 5.1, 5.2, 5.3, 5.4, 5.2, 5.2), strategy="kd")
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
    assert "- **kd, unlimited data at 1.00e12 FLOPs**: ahead of scratch (10.1 ± 0.2" in page
