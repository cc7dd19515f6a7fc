"""reporting/report.py: what the report says follows from the scores, and the same scores make the
same files."""
import csv
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from budget import size
from reporting import report
from reporting.cells import Cell

KD_GAIN = 0.1  # at the smaller budget; at the larger one kd scores as scratch does


def outcome_of(strategy, C, seed, gain=KD_GAIN):
    """What a cell left behind. Scores: scratch has 40 and 60 points at the two budgets, each seed 3
    more than the one before; kd has 10.0, 10.1, 10.2 more at the smaller budget."""
    score = (0.4 if C == 10 ** 12 else 0.6) + 0.03 * seed
    if strategy == "kd" and C == 10 ** 12:
        score += gain and gain + 0.001 * seed
    settings = {"lr": 1e-3, "seq_len": 32, "batch_size": 32, "betas": [0.9, 0.98], "dtype": "fp32"}
    bill = {"student_forward": 1, "student_backward": 2, "loss": 0,
            "teacher_forward": 0 if strategy == "scratch" else 2}
    record = {"val_loss": 2.0 - score, "unigram_loss": 4.0, "neighbour_loss": 1.3,
              "tokens": 10 ** 6, "epochs": 0.0, "seconds": 9.0, "flops_spent": C - 5,
              "settings": settings, "bill": bill, "machine": "m", "threads": 1,
              "versions": {"python": "3.11.7", "torch": "2.13.0"}}
    result = {"score": {"dev": [0.0, None], "test": [score, None]}, "seeds": 1,
              "majority": {"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.5}},
              "metrics": {"test": {"accuracy": [score, None]}}, "seconds": 2.0}
    return {"record": record, "results": {"entailment": result}}


def make_study(folder, strategies=("scratch", "kd"), seeds=3, gain=KD_GAIN,
               budgets=(10 ** 12, 10 ** 13)):
    """(args, outcomes) of a comparison at some budgets and on two data settings."""
    args = SimpleNamespace(
        strategies=list(strategies), budgets=list(budgets), unique_tokens=[None, 20000],
        seeds=seeds, seed_numbers=range(seeds), first_seed=0, out=folder, preset="demo",
        model=size("2x128"), teacher=None, teacher_model=size("4x128"), teacher_flops=10 ** 14,
        data="stories", lr=None, lr_grid=None, train_options="", distil_options="",
        glue_data="stories", glue_grid="stories", tasks="entailment", glue_seeds=1,
        glue_options="", head_teacher=None, settings={"model": "2x128"})
    outcomes = {}
    for unique in args.unique_tokens:
        for C in args.budgets:
            for seed in args.seed_numbers:
                for strategy in strategies:
                    commands = ("train.py", "--seed", str(seed)), ("glue.py",)
                    cell = Cell(strategy, C, unique, seed, None,
                                Path(f"{strategy}-{C}-{unique}-{seed}"), commands)
                    outcomes[cell] = outcome_of(strategy, C, seed, gain)
    return args, outcomes


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes a second, and most of these tests read only text."""
    for name in ("draw_forest", "draw_scores", "draw_bill"):
        monkeypatch.setattr(report, name, lambda *_: None)


def report_of(study, tried=(), failed=(), **options):
    args, outcomes = study
    report.write(args, None, list(outcomes), outcomes, list(tried), dict(failed), **options)
    return (args.out / "report.md").read_text()


# --------------------------------------------------------------------------------------------------
# The report

def test_the_report_holds_verdicts_commands_and_failures(study, no_figures):
    text = report_of(study, failed={"x": "error: it failed"})
    answer = "**kd, unlimited data, 1.00e12 FLOPs**: ahead of scratch (10.1 ± 0.2 points; n = 3)"
    assert answer in text and "Failed cells: x: error: it failed" in text
    # 1e14 / ((3.2 - 1) 1e12) = 45.5
    assert "if you also pay for training the teacher, it pays off once you distil 46 students" \
        in text
    assert (study[0].out / "cells.txt").read_text().count("python train.py --seed") == 24


def test_a_score_that_scratch_never_reaches_bounds_the_break_even(tmp_path, no_figures):
    args, outcomes = make_study(tmp_path)
    for cell, outcome in outcomes.items():
        if cell.strategy == "kd":
            outcome["results"]["entailment"]["score"]["test"][0] += 0.3
    text = report_of((args, outcomes))
    assert "scratch does not reach its score within 10 times the budget" in text
    # 1e14 / ((10 - 1) 1e12) = 11.1
    assert "it pays off once you distil 12 students, if not before" in text
    assert "scratch does not reach its score, and no larger budget was measured" in text


def test_a_score_below_all_of_scratchs_has_no_multiplier_where_no_smaller_budget_was_run(
        tmp_path, no_figures):
    text = report_of(make_study(tmp_path, gain=-0.1))
    assert ("**kd, unlimited data, 1.00e12 FLOPs**: behind scratch (-9.9 ± 0.2 points; n = 3); "
            "scratch scores more, and no smaller budget of it was measured.") in text


def test_a_score_below_all_of_scratchs_bounds_the_multiplier_by_its_smallest_budget(
        tmp_path, no_figures):
    args, outcomes = make_study(tmp_path)
    for cell, outcome in outcomes.items():
        if cell.strategy == "kd" and cell.flops == 10 ** 13:
            outcome["results"]["entailment"]["score"]["test"][0] -= 0.3 + 0.001 * cell.seed
    # At the larger budget kd scores less than scratch at the smaller one, which is a tenth of it.
    assert "scratch scores the same with less than 0.1 times the budget." in report_of(
        (args, outcomes))


def test_kd_is_compared_with_kd_released_where_both_were_run(tmp_path, no_figures):
    # Here kd-released scores as scratch does, so the pairs differ by 10.0, 10.1, 10.2 again.
    text = report_of(make_study(tmp_path, ("scratch", "kd", "kd-released")))
    assert ("- kd against kd-released, unlimited data, 1.00e12 FLOPs: ahead of kd-released "
            "(10.1 ± 0.2 points)") in text
    assert "kd against" not in report_of(make_study(tmp_path))
    alone = report_of(make_study(tmp_path, ("scratch", "kd", "kd-released"), seeds=1))
    assert "FLOPs: one seed: no verdict (10.0 points)" in alone and "of them (Holm)" not in alone


def test_students_are_compared_with_copied_layers_alone(tmp_path, no_figures):
    # scratch-copied has 5 points more than scratch. kd-copied has as many as scratch.
    args, outcomes = make_study(tmp_path, ("scratch", "scratch-copied", "kd-copied"))
    for cell, outcome in outcomes.items():
        if cell.strategy == "scratch-copied":
            outcome["results"]["entailment"]["score"]["test"][0] += 0.05
    section = report_of((args, outcomes)).split("## Against the controls")[1].split("## ")[0]
    assert ("- kd-copied against scratch-copied, unlimited data, 1.00e12 FLOPs: behind "
            "scratch-copied (-5.0 ± 0.0 points)") in section
    assert "- scratch-copied against" not in section
    assert "corrected for all 4 of them (Holm)" in section  # two budgets, two data settings


def test_a_comparison_without_controls_has_no_section_on_them(study, no_figures):
    assert "Against the controls" not in report_of(study)


def test_the_strategies_that_no_rate_was_chosen_for_are_named(tmp_path, no_figures):
    args, outcomes = make_study(tmp_path, ("scratch", "kd", "kd-released"))
    args.lr = "scratch=2e-3,kd=1e-3,tinybert=4e-3"
    assert ("learning rates chosen per strategy (train.py's default for kd-released)."
            in report_of((args, outcomes)))


def test_one_seed_gets_no_verdict_and_no_multiplier(tmp_path, no_figures):
    text = report_of(make_study(tmp_path, seeds=1))
    assert "one seed: no verdict (10.0 points; n = 1)." in text
    assert "times the budget" not in text.split("## Table")[0] and "pays off once" not in text
    assert "**These are few: take it as a demonstration.**" in text
    assert "1 seed: it does not show how much of a difference is luck." in text


def test_the_skills_are_counted(study, no_figures):
    # Seeds 0, 1 and 2 from scratch have 60, 63, 66 points at the larger budget, below 75.4; kd has
    # 50 to 56 at the smaller one.
    text = report_of(study)
    assert "| unlimited data | 1.00e13 | scratch | 0 of 3 [0, 56] |" in text
    assert "Fewer than 6 pairs are not compared: they cannot tell two shares apart." in text


@pytest.mark.parametrize("tests, words", [
    (("McNemar", "McNemar"), " Bold: another share than scratch's, by McNemar's exact test of the "
     "pairs, corrected for 2 comparisons (Holm)."),
    (("Fisher",), " Bold: another share than scratch's, by Fisher's exact test where no seed has "
     "both, corrected for 1 comparison (Holm)."), ((), "")])
def test_the_test_of_the_skills_is_the_one_that_was_made(tests, words):
    rows = [{"strategy": "kd", "test": test} for test in tests]
    assert report.how_compared([{"strategy": "scratch", "test": None}, *rows]) == words


def test_the_exits_from_the_plateau_are_a_median_of_those_that_left_it():
    row = {"loss_by_seed": {0: 1.0, 1: 1.0, 2: 4.0}, "seeds": 3, "exits": 2, "exit": 8.1e11}
    assert report.exit_words(row) == "8.10e11 (2 of 3)"
    assert report.exit_words({**row, "exits": 0, "exit": None}) == "none of 3"
    assert report.exit_words({**row, "loss_by_seed": {}}) == ""  # no head


def test_a_multiplier_is_shown_where_the_two_are_told_apart_alone(tmp_path, no_figures):
    text = report_of(make_study(tmp_path))
    told_apart, not_told = [line for line in text.splitlines()
                            if line.startswith("| unlimited data") and "| kd |" in line
                            and "scratch" in line]
    assert told_apart.endswith("| ahead of scratch | 3.2 |")
    assert not_told.endswith("| equal to scratch within 3 points |  |")


def test_kinds_with_fewer_students_are_counted(tmp_path, no_figures):
    args, outcomes = make_study(tmp_path)
    assert "24 students, 3 of a kind." in report_of((args, outcomes))
    cells = list(outcomes)
    del outcomes[next(cell for cell in outcomes if cell.strategy == "kd")]
    report.write(args, None, cells, outcomes, [], {})
    assert "23 of 24 students, 2 to 3 of a kind." in (args.out / "report.md").read_text()


def test_those_that_begin_with_layers_of_the_teacher_are_named(tmp_path, no_figures):
    words = "begin with the same weights for a seed"
    assert f"{words} (those of scratch-copied with layers of the teacher), and" in report_of(
        make_study(tmp_path, ("scratch", "scratch-copied")))
    assert f"{words}, and" in report_of(make_study(tmp_path))


def test_tasks_that_no_kind_can_do_are_named_in_the_report(tmp_path, no_figures):
    args, outcomes = make_study(tmp_path)
    assert "no kind of students" not in report_of((args, outcomes))
    for outcome in outcomes.values():
        outcome["results"]["entailment"]["majority"]["test"]["accuracy"] = 0.7
    assert "- entailment: no kind of students has a mean of a point more than guessing." in \
        report_of((args, outcomes))


def test_repeated_data_are_told_from_data_that_no_student_read_twice(tmp_path, no_figures):
    args, outcomes = make_study(tmp_path)
    assert "or repeated data: here no token was read twice." in report_of((args, outcomes))
    next(iter(outcomes.values()))["record"]["epochs"] = 240.4
    assert "or more repetitions than 240 epochs." in report_of((args, outcomes))


def test_students_of_different_machines_name_them_all(tmp_path, no_figures):
    args, outcomes = make_study(tmp_path)
    next(iter(outcomes.values()))["record"]["machine"] = "another"
    assert ("Python 3.11.7, torch 2.13.0, another, 1 thread a cell; Python 3.11.7, torch 2.13.0, "
            "m, 1 thread a cell.") in report_of((args, outcomes))


def test_the_spread_is_said_where_students_were_fine_tuned_more_than_once(study, no_figures):
    assert "Where the spread comes from" not in report_of(study)
    args, outcomes = make_study(study[0].out, gain=0.0)
    args.glue_seeds = 2
    for outcome in outcomes.values():
        result = outcome["results"]["entailment"]
        result["seeds"] = 2
        result["score"]["test"][1] = 0.02
    # Seeds differ by 3 points: their variance is 9, of which 2^2 / 2 is fine-tuning.
    text = report_of((args, outcomes))
    assert "one student have a standard deviation of 2.0 points. Students that" in text
    assert "have one of 2.6, with the noise of fine-tuning taken out" in text
    assert "fine-tuning is 22% of its variance" in text


def test_the_rates_that_were_tried_are_in_the_report(study, no_figures):
    text = report_of(study, tried=[("scratch", 1e-3, 0.5), ("kd", 2e-3, 0.61)])
    assert "| kd | 0.002 | 61.0 |" in text and "learning rates chosen per strategy" in text
    assert "(2.00e12 FLOPs of tries)" in text  # two students at the smallest budget
    assert "## Learning rates" not in report_of(study)


def test_the_command_in_the_report_makes_the_comparison_again(study, no_figures):
    args, _ = study
    text = report_of(study)
    assert ("python compare.py --strategies=scratch,kd --budgets=1.00e12,1.00e13 "
            "--unique-tokens=inf,2.00e4 --seeds=3 --model=2x128 --teacher-model=4x128 "
            "--teacher-flops=1.00e14") in text
    assert f"--out={args.out}" in text
    assert "```bash\nmy command\n```" in report_of(study, command="my command")


def test_results_csv_has_a_line_for_each_cell_task_and_metric(study, no_figures):
    report_of(study)
    rows = list(csv.DictReader(io.StringIO((study[0].out / "results.csv").read_text())))
    assert len(rows) == 24
    assert rows[0].keys() >= {"strategy", "flops", "unique_tokens", "seed", "task", "metric",
                              "score", "val_loss"}
    assert rows[0]["score"] == "0.400000" and rows[0]["unique_tokens"] == "inf"


def test_nothing_finished_is_nothing_to_report(tmp_path, capsys):
    args, outcomes = make_study(tmp_path)
    report.write(args, None, list(outcomes), {}, [], {})
    assert "nothing to report" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_same_results_make_the_same_files(study):
    args, outcomes = study
    contents = []
    for _ in range(2):
        report_of(study)
        contents.append({path.name: path.read_bytes() for path in args.out.iterdir()
                         if path.suffix in (".md", ".csv", ".svg")})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"report.md", "results.csv", "forest.svg", "scores.svg", "bill.svg"}
    for name in ("forest.png", "scores.png", "scores.svg", "bill.png", "bill.svg"):
        assert (args.out / name).stat().st_size > 2000
