"""reporting/report.py: what the report says follows from what was found, and the same students make
the same files."""
import csv

import pytest
from studies import make_study, without

import compare
from reporting import report

AHEAD, BEHIND, OPEN = (10.0, 10.1, 10.2), (-10.0, -10.1, -10.2), (9.0, -7.0, 1.0)
BELOW = (-4.0, -4.2, -3.9), (-4.1, -4.0, -4.0)
BOTH = "at 1.00e12 and 1.00e13 FLOPs"


def report_of(study, outcomes, planned=0, **more):
    report.write_report(study, compare.findings(study, outcomes), "my command", planned, **more)
    return (study.out / "report.md").read_text()


def rows_in(text, heading):
    """The rows of the first table below a heading, each as {head of a column: words}."""
    lines = text.split(f"\n{heading}\n")[1].split("\n|", 1)[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


@pytest.mark.parametrize("gains, words", [
    ({"kd": (5, 5)}, f"{BOTH} take kd if you have a teacher."),
    ({"kd": (OPEN, OPEN)}, f"{BOTH} it is open whether kd beats scratch."),
    ({"kd": (0, 0), "minilm": (-4, -4)}, f"{BOTH} pretrain from scratch, and save yourself the "
     "teacher."),
    # The gain depends on the budget: each has the verdict of its own.
    ({"kd": (AHEAD, BEHIND), "minilm": (6, 6)}, "at 1.00e12 FLOPs take kd or minilm if you have a "
     "teacher; at 1.00e13 FLOPs take minilm if you have a teacher."),
    # Copied layers alone give 5 points. TinyBERT gives more, MiniLM less.
    ({"scratch-copied": (5, 5), "tinybert": (9, 9), "minilm": (4, 4)},
     f"{BOTH} take scratch-copied, or what is ahead of it below, if you have a teacher.")])
def test_the_advice_follows_from_the_verdicts(tmp_path, gains, words):
    study, outcomes = make_study(tmp_path, gains)
    assert report.advice(study, compare.findings(study, outcomes)) == [
        f"With unlimited data, {words}", f"With 20,000 distinct tokens, {words}"]


def test_the_first_page_has_a_row_for_each_difference(tmp_path, no_figures):
    study, outcomes = make_study(tmp_path, {"kd": (AHEAD, 0), "minilm": BELOW})
    outcomes = without(outcomes, strategy="minilm", unique_tokens=20000, flops=10 ** 13)
    rows = rows_in(report_of(study, outcomes), "![differences to scratch](forest.png)")
    kd = ("1.00e12 and 1.00e13", "kd", "5.0 ± 0.1", "3", "", "depends on the budget",
          "-10.1 ± 0.2", "< 0.001")
    assert [tuple(row.values()) for row in rows] == [
        ("unlimited data", *kd),
        ("unlimited data", "1.00e12 and 1.00e13", "minilm", "-4.0 ± 0.2", "3", "< 0.001",
         "behind scratch", "0.0 ± 0.4", "1"),
        ("20,000 distinct tokens", *kd),
        ("20,000 distinct tokens", "1.00e12", "minilm", "-4.0 ± 0.4", "3", "< 0.001",
         "behind scratch", "", "")]


def test_without_pairs_there_is_nothing_to_compare(tmp_path, no_figures):
    study, outcomes = make_study(tmp_path)
    (tmp_path / "forest.png").write_text("of an earlier report")
    text = report_of(study, without(outcomes, strategy="scratch"))
    assert "There is nothing to compare: no student has a partner from scratch" in text
    assert not (tmp_path / "forest.png").exists()
    assert "| 5.0 | 1 |  | one pair: no verdict |" in report_of(*make_study(tmp_path, seeds=1))


@pytest.mark.parametrize("gains, flops, needs, pays_off", [
    # 1e14 / ((3.2 - 1) 1e12) = 45.5
    ((AHEAD, 0), "1.00e12", "3.2 x", "46 students"), ((AHEAD, 0), "1.00e13", "", ""),  # it is equal
    # 1e14 / ((10 - 1) 1e12) = 11.1
    ((40, 30), "1.00e12", "> 10 x", "12 students, if not before"),
    ((40, 30), "1.00e13", "> 1 x", ""),  # no larger budget was measured
    # At the larger budget kd scores less than scratch at the smaller one, which is a tenth of it.
    ((-9, -30), "1.00e13", "< 0.1 x", ""), ((-9, -30), "1.00e12", "< 1 x", "")])
def test_what_a_difference_is_worth_is_said_where_it_is_told_apart(tmp_path, no_figures, gains,
                                                                   flops, needs, pays_off):
    rows = rows_in(report_of(*make_study(tmp_path, {"kd": gains})), "## Budget by budget")
    row = next(row for row in rows if row["FLOPs"] == flops)
    assert (row["scratch needs"], row["pays off"]) == (needs, pays_off)


def test_the_table_has_a_row_for_each_kind(tmp_path, no_figures):
    study, outcomes = make_study(tmp_path)
    for cell, outcome in outcomes.items():
        outcome["record"] |= {"epochs": 240.4, "val_loss": None if cell.strategy == "kd" else 3.9}
    rows = rows_in(report_of(study, without(outcomes, strategy="kd", seed=2)), "## The table")
    assert len(rows) == 8 and rows[0] == {
        "data": "unlimited data", "FLOPs": "1.00e12", "strategy": "scratch", "students": "3",
        "tokens": "1.00e6", "epochs": "240", "MLM loss": "3.900 (plateau)", "entailment": "43.0",
        "score": "43.0 ± 7.5", "can do entailment": "0 of 3 [0, 56]"}
    assert (rows[1]["students"], rows[1]["MLM loss"]) == ("2", "no head")
    for outcome in outcomes.values():
        outcome["results"] = {"rte": outcome["results"]["entailment"]}
    assert "can do rte" not in report_of(study, outcomes)  # GLUE's tasks have no gate


def test_the_report_says_how_it_was_made_and_what_would_change_it(tmp_path, no_figures):
    study, outcomes = make_study(tmp_path)
    study.rates = {"kd": 2e-3, "scratch": None}
    next(iter(outcomes.values()))["record"]["machine"] = "another"
    for outcome in outcomes.values():
        outcome["results"]["entailment"]["majority"]["test"]["accuracy"] = 0.63
    text = report_of(study, outcomes, planned=25, failed={"x": "error: it failed"})
    for words in ("```bash\nmy command\n```", "24 of 25 students.", "cell: x: error: it failed",
                  "Seconds of pretraining: scratch 9, kd 9.", "(trained here with 1.00e14 FLOPs)",
                  "torch 2.13.0, another, threads: 1; torch 2.13.0, m, threads: 1", "- 3 seeds: ",
                  "- entailment: no mean is a point more than guessing", "more than 0 epochs",
                  "for each strategy: scratch by default, kd 0.002."):
        assert words in text


def test_the_same_students_make_the_same_files(tmp_path):
    study, outcomes = make_study(tmp_path)
    contents = []
    for _ in range(2):
        report_of(study, outcomes)
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1]
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".csv", ".png", ".svg"}
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == 24 and rows[0].items() >= {
        "data": "inf", "flops": str(10 ** 12), "strategy": "scratch", "seed": "0", "lr": "0.001",
        "score": "40.0", "task entailment": "40.0", "val_loss": "1.6", "tokens": "1000000"}.items()
