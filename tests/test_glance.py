"""tools/glance.py: the table says what the runs' files say, and the figure leaves no run out
silently."""
import os

from files import disk
from program.cli import UserError

import pytest
from conftest import run_main
from test_folders import fine_tuning, save_run, validation

from reporting import curves
from tools import glance


@pytest.fixture
def drawn(monkeypatch):
    """[(panels, path)] of the figures that are drawn. Drawing takes a second, and test_curves.py
    looks at it."""
    calls = []
    monkeypatch.setattr(curves, "draw_curves", lambda panels, path: calls.append((panels, path)))
    return calls


def run(*words):
    """(exit status, the lines on stdout, the lines on stderr) of the program."""
    status, out, err = run_main(glance.main, "glance.py", words)
    return status, out.splitlines(), err.splitlines()


def cells_of(lines):
    """The rows of the printed table: [{heading: cell}]. A column begins where its heading does."""
    heading = lines[0]
    starts = [i for i, letter in enumerate(heading)
              if letter != " " and (i < 2 or heading[i - 2:i] == "  ")]
    spans = list(zip(starts, [*starts[1:], None]))
    rows = [line for line in lines[1:] if line[0].isdigit()]
    return [{heading[a:b].strip(): row[a:b].strip() for a, b in spans} for row in rows]


def test_the_table_says_what_each_run_is_and_how_far(tmp_path, drawn):
    save_run(tmp_path / "done", [validation(900)], strategy="kd", unique_tokens=10_000)
    save_run(tmp_path / "half", [validation(0, val_loss=5.5), {"flops": 420}], finished=False,
             data=["books/a.txt", "b/"])
    status, out, _ = run(tmp_path)
    assert status == 0
    assert cells_of(out) == [
        {"run": "done", "strategy": "kd", "size": "2x64", "data": "stories, 10,000 distinct tokens",
         "FLOPs": "1000", "loss": "3.500", "unigram": "4.000", "score": "", "state": "finished"},
        {"run": "half", "strategy": "scratch", "size": "2x64", "data": "a.txt, b", "FLOPs": "1000",
         "loss": "5.500", "unigram": "4.000", "score": "", "state": "42%, on the plateau"}]


def test_a_run_on_the_plateau_is_told_so(tmp_path, drawn):
    # 3.7 is less than a tenth below 4.0.
    for name, loss in (("a", 3.7), ("b", 3.5)):
        save_run(tmp_path / name, [validation(900, val_loss=loss)])
    states = [row["state"] for row in cells_of(run(tmp_path)[1])]
    assert states == ["finished, on the plateau", "finished"]


def test_a_score_stands_with_the_number_of_its_tasks(tmp_path, drawn):
    folder = save_run(tmp_path / "a", [validation(900)])
    disk.write_json(folder / "glue.json", {"cells": [fine_tuning("x", 0.5), fine_tuning("y", 0.7)]})
    assert cells_of(run(tmp_path)[1])[0]["score"] == "60.0 (2 tasks)"


@pytest.mark.parametrize("before, words", [(5 * 10 ** 12, "1000 + 5.00e12 before"),
                                           (None, "1000 + unknown before")])
def test_what_was_spent_before_is_on_the_bill_and_on_the_axis(tmp_path, drawn, before, words):
    rows = [validation(0, val_loss=3.9), validation(900)]
    save_run(tmp_path / "more", rows, record={"flops_before": before})
    assert cells_of(run(tmp_path)[1])[0]["FLOPs"] == words
    (panels, _), = drawn
    (shown,), = panels.values()
    # At 0 FLOPs there is no place on a logarithmic axis.
    assert shown.points == ([(before, 3.9), (before + 900, 3.5)] if before else [(900, 3.5)])


def test_the_labels_are_the_numbers_of_the_table(tmp_path, drawn):
    save_run(tmp_path / "a", [validation(900)], model="4x128", init="teacher")
    save_run(tmp_path / "b", [validation(420)], finished=False, strategy="kd")
    _, out, _ = run(tmp_path)
    (panels, path), = drawn
    assert path == tmp_path / "curves.png" and out[-1] == f"curves: {path}"
    (shown,) = panels.values()
    assert [curve.label for curve in shown] == ["1 scratch-copied 4x128", "2 kd 2x64, 42%"]
    assert [curve.finished for curve in shown] == [True, False]
    assert (shown[0].unigram, shown[0].neighbours) == (4.0, 1.3)


def test_a_text_and_a_vocabulary_have_a_panel_of_their_own(tmp_path, drawn):
    for name, settings in (("a", {}), ("b", {"unique_tokens": 500}), ("c", {"data": ["books/"]}),
                           ("d", {"data": ["books/"], "vocab_size": 8192})):
        save_run(tmp_path / name, [validation(900)], **settings)
    run(tmp_path)
    (panels, _), = drawn
    assert {text: len(shown) for text, shown in panels.items()} == {
        "stories, 201 words and word pieces": 2, "books, 201 words and word pieces": 1,
        "books, 8,192 words and word pieces": 1}


def test_runs_without_a_masked_word_loss_are_listed_and_named_beside_the_figure(tmp_path, drawn):
    own = [{"flops": 900, "val_terms": {"tinybert": 0.1}}]
    save_run(tmp_path / "a", own, strategy="tinybert")
    save_run(tmp_path / "b", [validation(900)])
    save_run(tmp_path / "c", own, strategy="minilm")
    save_run(tmp_path / "d", [validation(0)], finished=False)
    _, out, _ = run(tmp_path)
    assert [row["loss"] for row in cells_of(out)] == ["", "3.500", "", "3.500"]
    assert [line for line in out if "not in the figure" in line] == [
        "not in the figure: 1 and 3, since nothing in their loss predicts words",
        "not in the figure: runs that have just begun"]
    (panels, _), = drawn
    assert [curve.label for shown in panels.values() for curve in shown] == ["2 scratch 2x64"]


def test_without_any_masked_word_loss_there_is_no_figure(tmp_path, drawn):
    save_run(tmp_path / "a", [{"flops": 900, "val_terms": {"minilm": 0.1}}], strategy="minilm")
    status, out, _ = run(tmp_path)
    assert status == 0 and not drawn and "curves:" not in out[-1]


def test_the_figure_of_very_many_says_which_it_names(tmp_path, drawn):
    for i in range(curves.MOST_LABELS + 1):
        save_run(tmp_path / f"run{i}", [validation(900)])
    assert f"the figure names the {curves.MOST_LABELS} curves with the lowest losses" in (
        run(tmp_path)[1])


def test_a_damaged_run_is_one_line_and_nothing_is_written_into_a_runs_folder(tmp_path):
    save_run(tmp_path / "good", [validation(900)])
    (save_run(tmp_path / "bad") / "run.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status, out, err = run(tmp_path)
    assert status == 0 and not err and out[0].startswith("skipped: bad: ")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert after.pop(tmp_path / "curves.png") and after == before


def test_out_says_where_the_figure_goes(tmp_path, drawn):
    save_run(tmp_path / "runs/a", [validation(900)])
    run(tmp_path / "runs", "--out", tmp_path / "mine.png")
    assert drawn[0][1] == tmp_path / "mine.png"


@pytest.mark.parametrize("words, message", [
    (["--out", "/dev/null"], "no name of a figure"), (["--out", "a.pdf"], "no name of a figure"),
    (["--out", "{}/a/x.png"], "lies in a run's folder"), (["--outs", "x"], "did you mean --out"),
    (["--out", ""], "an empty name")])
def test_a_figure_that_has_no_place_is_refused(tmp_path, words, message):
    save_run(tmp_path / "a")
    with pytest.raises(UserError, match=message):
        glance.arguments([str(tmp_path), *(word.format(tmp_path) for word in words)])


def test_where_there_is_no_run_one_line_says_how_to_make_one(tmp_path):
    for folder, words in ((tmp_path, "holds no runs"), (tmp_path / "runs", "there is no folder")):
        status, out, err = run(folder)
        assert (status, out) == (2, []) and len(err) == 1
        assert words in err[0] and "python train.py --flops" in err[0]
    assert os.listdir(tmp_path) == []


def test_a_runs_own_folder_is_refused(tmp_path):
    save_run(tmp_path / "a")
    status, _, err = run(tmp_path / "a", "--out", tmp_path / "x.png")
    assert status == 2 and "is a run itself" in err[0] and len(err) == 1


@pytest.mark.slow
def test_it_is_a_program_that_runs_from_the_root(python, tmp_path):
    done = python("-m", "tools.glance", str(tmp_path))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path} holds no runs")
