"""tools/glance.py: the table says what the runs' files say, and the figure leaves no run out
silently."""
import json

from files import disk
from program.cli import UserError

import numpy as np
import pytest
from conftest import run_main

from reporting import figures
from tools import glance

SETTINGS = {"strategy": "scratch", "model": "2x64", "data": ["stories"], "unique_tokens": None,
            "vocab_size": 201, "flops_budget": 1000, "seed": 0}


def validation(flops, **losses):
    """A row of a log."""
    return {"flops": flops, "val_terms": {"mlm": 1.0}, "val_loss": 3.5, "unigram_loss": 4.0,
            "neighbour_loss": 1.3, **losses}


def save_run(folder, rows=(validation(900),), finished=True, record=(), **settings):
    """Writes run.json and log.jsonl as a run does that has such a log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    disk.write_json(folder / "run.json", {
        "finished": finished, "settings": {**SETTINGS, **settings},
        "files": {"log.jsonl": disk.file_sha256(folder / "log.jsonl")} if finished else {},
        **dict(record)})
    return folder


def run(*words):
    """(exit status, the lines on stdout, the lines on stderr) of the program."""
    status, out, err = run_main(glance.main, "glance.py", words)
    return status, out.splitlines(), err.splitlines()


def words_of(folder, *headings):
    """The words below these headings in the table of the runs in a folder."""
    return [tuple(run.words[heading] for heading in headings) for run in glance.runs_in(folder)]


@pytest.fixture
def panels(monkeypatch):
    """What is drawn: {text: {label of a curve: its run}}."""
    drawn = {}
    monkeypatch.setattr(glance, "draw_panels", lambda panels, path: drawn.update(panels))
    return drawn


# --------------------------------------------------------------------------------------------------
# The table


def test_the_table_says_what_each_run_is_and_how_far(tmp_path, panels):
    save_run(tmp_path / "done", strategy="kd", unique_tokens=10_000)
    save_run(tmp_path / "cells/half", [validation(0, val_loss=5.5), {"flops": 420}],
             finished=False, data=["books/a.txt", "b/"])
    with open(tmp_path / "cells/half/log.jsonl", "a") as log:
        log.write('{"step": 300, "flo')  # the run goes on
    status, out, _ = run(tmp_path)
    assert status == 0 and [line.split() for line in out[:3]] == [
        "run strategy size data FLOPs before loss unigram plateau state".split(),
        "1 cells/half scratch 2x64 a.txt, b 1000 0 5.500 4.000 on it 42%".split(),
        "2 done kd 2x64 stories, 10,000 distinct tokens 1000 0 3.500 4.000 finished".split()]


@pytest.mark.parametrize("options, heading, words", [
    # 3.7 is less than a tenth below 4.0.
    ({"rows": [validation(900, val_loss=3.7)]}, "plateau", "on it"),
    ({"rows": [validation(900, val_loss=3.5)]}, "plateau", ""),
    ({"record": {"flops_before": 5 * 10 ** 12}}, "before", "5.00e12"),
    ({"record": {"flops_before": None}}, "before", "unknown"),
    ({"strategy": "kd", "init": "teacher"}, "strategy", "kd-copied"),
    ({"rows": [{"flops": 1, "val_terms": {"tinybert": 0.1}}], "finished": False}, "loss", ""),
    ({"rows": [], "finished": False}, "state", "0%")])
def test_what_the_files_say_of_a_run(tmp_path, options, heading, words):
    save_run(tmp_path / "run", **options)
    assert words_of(tmp_path, heading) == [(words,)]


@pytest.mark.parametrize("damage, words", [
    (lambda folder: (folder / "run.json").write_text("[1]"), "not a JSON object"),
    (lambda folder: (folder / "log.jsonl").write_text("{}\n"), "log.jsonl is missing, is damaged"),
    (lambda folder: (folder / "run.json").write_text('{"settings": {"lr": 1}}'), "not that of a"),
    (lambda folder: save_run(folder, flops_budget=0, finished=False), "is not that of a run"),
    (lambda folder: save_run(folder, [[1]], finished=False), "is not that of a run"),
    (lambda folder: save_run(folder, strategy="magic"), "is not that of a run"),
    (lambda folder: save_run(folder, model="$\\x$"), "is no model size")])
def test_a_damaged_run_is_one_line_and_the_others_are_listed(tmp_path, capsys, damage, words):
    damage(save_run(tmp_path / "bad"))
    save_run(tmp_path / "good")
    assert words_of(tmp_path, "run") == [("good",)]
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("skipped: bad: ") and words in line


# --------------------------------------------------------------------------------------------------
# The figure


def test_each_text_and_vocabulary_has_a_panel_and_the_labels_are_the_numbers_of_the_table(
        tmp_path, panels):
    for name, settings in (("a", {"model": "4x128"}), ("b", {"unique_tokens": 500}),
                           ("c", {"data": ["books/"]})):
        save_run(tmp_path / name, **settings)
    save_run(tmp_path / "d", finished=False, data=["books/"], vocab_size=8192, strategy="kd")
    _, out, _ = run(tmp_path)
    assert out[-1] == f"curves: {tmp_path / 'curves.png'}"
    assert {text: list(runs) for text, runs in panels.items()} == {
        "stories, 201 words and word pieces": ["1 scratch 4x128, finished",
                                               "2 scratch 2x64, finished"],
        "books, 201 words and word pieces": ["3 scratch 2x64, finished"],
        "books, 8,192 words and word pieces": ["4 kd 2x64, 90%"]}


def test_runs_without_a_curve_are_named_beside_the_figure(tmp_path, panels):
    own = [{"flops": 900, "val_terms": {"minilm": 0.1}}]
    save_run(tmp_path / "a", own, strategy="minilm")
    save_run(tmp_path / "c", [validation(0)], finished=False)
    line = ("not in the figure: 1 and 2, which have just begun, or whose loss predicts no words")
    assert run(tmp_path)[1][-1] == line and not panels
    save_run(tmp_path / "d")
    assert run(tmp_path)[1][-2] == line and [list(runs) for runs in panels.values()] == [
        ["3 scratch 2x64, finished"]]


def test_curves_stand_at_their_flops_and_dashed_lines_where_counting_words_is(tmp_path):
    save_run(tmp_path / "a", [validation(0, val_loss=5), validation(9e9, val_loss=4)],
             record={"flops_before": 10 ** 9})
    save_run(tmp_path / "b", [validation(9e9)], finished=False, strategy="kd")
    axes = figures.pyplot().subplots()[1]
    glance.draw_text(axes, {str(i): found for i, found in enumerate(glance.runs_in(tmp_path))})
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert np.allclose(lines["0"].get_xydata(), [(1e9, 5), (1e10, 4)])
    assert (lines["0"].get_linestyle(), lines["1"].get_linestyle()) == ("-", ":")
    assert (lines["1"].get_color(), lines["1"].get_marker()) == figures.style_of("kd")
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "0", "1", "word frequencies (unigram)", "both neighbours, by counts"]
    assert sorted(line.get_ydata()[0] for line in axes.get_lines()
                  if line.get_linestyle() == "--") == [1.3, 4.0]
    figures.pyplot().close("all")


def test_the_figure_is_a_png_and_nothing_is_written_into_a_runs_folder(tmp_path):
    for i in range(50):
        save_run(tmp_path / f"good{i}", data=["b$oo\\k$"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run(tmp_path)[0] == 0
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert after.pop(tmp_path / "curves.png") and after == before
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words, message", [
    (["--out", "/dev/null"], "no place for a figure"), (["--out", "a.pdf"], "ends in .png"),
    (["--out", "{}/a/x.png"], "outside of a run's folder"), (["{}/a"], "outside of a run's folder"),
    (["--out", ""], "an empty name")])
def test_a_figure_that_has_no_place_is_refused(tmp_path, words, message):
    save_run(tmp_path / "a")
    with pytest.raises(UserError, match=message):
        glance.arguments([word.format(tmp_path) for word in words])


def test_where_there_is_no_run_one_line_says_how_to_make_one(tmp_path):
    for folder in (tmp_path, tmp_path / "runs"):
        status, out, err = run(folder)
        assert (status, out) == (2, []) and len(err) == 1
        assert "holds no runs" in err[0] and "python train.py --flops" in err[0]
