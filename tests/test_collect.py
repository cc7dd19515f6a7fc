"""collect.py: comparisons of many people, made by hand here, become one report. What does not
belong together is refused."""
import csv
from pathlib import Path

from files import disk
from program.cli import UserError

import pytest
from studies import fine_tunings, hand_in

import compare
from reporting import cells, report


def collect_into(out, *folders):
    compare.collect_into(compare.read_settings(["--collect", *folders, "--out", str(out)]))
    return (out / "report.md").read_text(), list(csv.DictReader((out / "results.csv").open()))


@pytest.mark.parametrize("gains, row", [
    # Students from scratch have 50, 70 and 60 points, and those of KD so many more: 2 and 6, in the
    # mean 4.0 +- 12.7062 x 2.828 / sqrt(2). The 20 points between ann's and ben's do not count.
    ({"ann": 2, "ben": 6}, "| 4.0 ± 25.4 | 2 | 0.3 | not told apart from scratch |"),
    # A third hand narrows the interval: 4.3027 x 2 / sqrt(3).
    ({"ann": 2, "ben": 6, "cem": 4}, "| 4.0 ± 5.0 | 3 | 0.074 | not told apart from scratch |")])
def test_differences_of_all_the_class_are_paired_by_seed(tmp_path, gains, row):
    scratch, folders = {"ann": 50, "ben": 70, "cem": 60}, []
    for i, (name, gain) in enumerate(gains.items(), start=1):
        points = scratch[name]
        folders.append(hand_in(tmp_path, name, {("scratch", 10 * i): points / 100,
                                      ("kd", 10 * i): (points + gain) / 100}))
    text, rows = collect_into(tmp_path / "all", *folders)
    assert row in text and (tmp_path / "all" / "scores.png").stat().st_size > 2000
    assert [(one["strategy"], int(one["seed"]), float(one["score"])) for one in rows] == [
        (strategy, 10 * i, scratch[name] + gains[name] * (strategy == "kd"))
        for strategy in ("scratch", "kd") for i, name in enumerate(gains, start=1)]


@pytest.mark.parametrize("teachers, words", [
    (("other/bert", "None"), "(one of each comparison's own, other/bert)"),
    (("None", "None"), "(trained here with 3.00e12 FLOPs)")])
def test_teachers_of_different_names_are_named(tmp_path, no_figures, teachers, words):
    folders = [hand_in(tmp_path, name, {("scratch", seed): 0.5}, teacher=teacher)
               for name, seed, teacher in zip(("ann", "ben"), (10, 20), teachers)]
    assert f"teacher BERT 4x128 {words}" in collect_into(tmp_path / "all", *folders)[0]


def test_the_teachers_score_is_shown_where_all_had_the_same(tmp_path, monkeypatch):
    folders = [hand_in(tmp_path, name, {("scratch", seed): 0.5})
               for name, seed in (("ann", 10), ("ben", 20))]
    shown = []
    monkeypatch.setattr(report, "draw_scores", lambda *figure: shown.append(figure[-1]["score"]))
    collect_into(tmp_path / "none", *folders)
    for folder, accuracy in zip(folders, (0.9, 0.8)):
        task, = cells.tasks_of(str(tmp_path / "glue"), "rte")
        (Path(folder) / "teacher-scores").mkdir()
        disk.write_json(Path(folder) / "teacher-scores" / "glue.json", fine_tunings(task, accuracy))
        collect_into(tmp_path / f"{accuracy}", *folders)
    assert [levels.get("teacher") for levels in shown] == [None, pytest.approx(90), None]


def test_a_report_of_its_own_and_what_is_collected_are_not_written_over(tmp_path,
                                                                       no_figures):
    ann = hand_in(tmp_path, "ann", {("scratch", 10): 0.5})
    collect_into(tmp_path / "all", ann)
    path = tmp_path / "all" / "students.zip"
    before = path.read_bytes()
    for folder, source in ((tmp_path / "ann", ann), (tmp_path / "all", str(path))):
        with pytest.raises(UserError, match="holds a report, which would be written over"):
            collect_into(folder, source)
    assert path.read_bytes() == before


def edit(path, change):
    record = disk.read_json(path)
    change(record)
    disk.write_json(path, record)


def test_fine_tunings_that_were_not_asked_for_and_names_of_folders_do_not_count(
        tmp_path, no_figures):
    ann = hand_in(tmp_path, "ann", {("scratch", 10): 0.5})
    student = tmp_path / "ann" / "cells" / "scratch-1.00e12-all-seed10"
    better = {"lr": 1.0, "scores": {"dev": {"accuracy": 1.0}}}
    edit(student / "glue.json", lambda record: record["cells"].append({**record["cells"][0],
                                                                       **better}))
    student.rename(student.with_name("renamed"))
    _, rows = collect_into(tmp_path / "all", ann)
    assert [(row["score"], row["seed"]) for row in rows] == [("50.0", "10")]


@pytest.mark.parametrize("spoil, why", [
    (lambda cell: edit(cell / "glue.json", lambda kept: kept["cells"].pop()),
     "it is not scored on all tasks"),
    (lambda cell: (cell / "run.json").unlink(), "it is not finished"),
    (lambda cell: edit(cell / "run.json", lambda record: record.update(finished=False)),
     "it is not finished")])
def test_each_student_that_is_left_out_is_named(tmp_path, capsys, no_figures, spoil, why):
    ann = hand_in(tmp_path, "ann", {("scratch", 10): 0.5, ("kd", 10): 0.6})
    spoil(tmp_path / "ann" / "cells" / "kd-1.00e12-all-seed10")
    _, rows = collect_into(tmp_path / "all", ann)
    assert {row["strategy"] for row in rows} == {"scratch"}
    line, = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert line.startswith(f"left out: {ann}/cells/kd") and line.endswith(why)


def test_what_cannot_be_collected_ends_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    disk.write_json(tmp_path / "old" / "compare.json", {"tasks": "rte"})
    ann, ben, other = (hand_in(tmp_path, name, {("scratch", 10): 0.5})
                       for name in ("ann", "ben", "other"))
    edit(next(Path(other).glob("cells/*/run.json")),
         lambda record: record["settings"].update(model="4x128"))
    mistakes = (([str(tmp_path / "empty")], "is no comparison's folder"),
                ([str(tmp_path / "old")], "does not say model"),
                ([hand_in(tmp_path, "kd", {("kd", 10): 0.5})], "no student from scratch"),
                ([ann, ben], "are the same student: give each comparison a --first-seed of its"),
                ([ann, hand_in(tmp_path, "lr", {("scratch", 20): 0.5}, lr="0.001")],
                 "another comparison than .*: lr is 0.001 here and None there"),
                ([other], r"is not what its name says \(model\)"))
    for folders, message in mistakes:
        with pytest.raises(UserError, match=message):
            collect_into(tmp_path / "all", *folders)
    assert not (tmp_path / "all").exists()
