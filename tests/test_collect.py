"""collect.py: comparisons of many people, made by hand here, become one report. What does not
belong together is refused."""
import csv
from pathlib import Path

from files import disk
from program.cli import UserError

import pytest

import compare
import glue
from reporting import cells, report

FIXED = {"model": "2x128", "teacher": "None", "head_teacher": "None", "teacher_model": "4x128",
         "teacher_flops": "3000000000000", "data": "stories", "glue_grid": "quick", "tasks": "rte",
         "glue_seeds": "1", "lr": "None", "train_options": "", "distil_options": "",
         "glue_options": ""}


def run_record(strategy, seed):
    """What train.py leaves in run.json of a student at 1e12 FLOPs."""
    settings = {"strategy": strategy, "flops_budget": 10 ** 12, "unique_tokens": None, "seed": seed,
                "model": "2x128", "lr": 1e-3, "seq_len": 32, "batch_size": 32,
                "betas": [0.9, 0.98], "dtype": "fp32"}
    bill = {"student_forward": 1, "student_backward": 2, "loss": 0,
            "teacher_forward": 0 if strategy == "scratch" else 2}
    return {"finished": True, "val_loss": 2.0, "unigram_loss": 4.0, "neighbour_loss": 1.3,
            "tokens": 10 ** 6, "epochs": 0.0, "seconds": 9.0, "flops_spent": 10 ** 12 - 5,
            "bill": bill, "machine": "m", "threads": 1, "settings": settings,
            "versions": {"python": "3.11.7", "torch": "2.13.0"}}


def fine_tunings(task, accuracy, seed=0):
    """What glue.py leaves in glue.json, on another machine, of the cells of the quick grid."""
    grid = glue.GRIDS["quick"]
    cell = {"task": "rte", "epochs": grid["epochs"], "seed": seed, "seq_len": 128, "pool": "cls",
            "model_sha256": "0" * 16, "data": "elsewhere", "dtype": "bf16", "device": "cuda",
            "examples_sha256": task.fingerprint, "seconds": 1.0,
            "scores": {"dev": {"accuracy": accuracy}}}
    width = 768 / 128 if grid.get("by_width") else 1
    return {"cells": [{**cell, "lr": lr * width, "batch_size": batch_size}
                      for lr in grid["lr"] for batch_size in grid["batch_size"]]}


@pytest.fixture
def hand_in(tmp_path):
    """hand_in("ann", {("kd", 7): 0.625}) -> the folder of ann's comparison, without weights: its
    students by (strategy, seed), with their accuracy on the development set."""
    rte = tmp_path / "glue" / "RTE"
    rte.mkdir(parents=True)
    rows = [f"{i}\tmia had a hat.\tleo had a hat.\t{('not_entailment', 'entailment')[i % 2]}\n"
            for i in range(8)]
    for part in ("train", "dev"):
        (rte / f"{part}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))

    def make(name, students, **fixed):
        folder = tmp_path / name
        fixed = {**FIXED, "glue_data": str(tmp_path / "glue"), **fixed}
        task, = cells.tasks_of(fixed["glue_data"], "rte")
        folder.mkdir()
        for (strategy, seed), accuracy in students.items():
            cell = folder / "cells" / f"{strategy}-1.00e12-all-seed{seed}"
            cell.mkdir(parents=True)
            disk.write_json(cell / "run.json", run_record(strategy, seed))
            disk.write_json(cell / "glue.json", fine_tunings(task, accuracy))
        disk.write_json(folder / "compare.json", fixed)
        return str(folder)
    return make


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes a second, and most of these tests read only text."""
    for name in ("draw_forest", "draw_scores", "draw_bill"):
        monkeypatch.setattr(report, name, lambda *_: None)


def collect_into(out, *folders):
    compare.collect_into(compare.read_settings(["--collect", *folders, "--out", str(out)]))
    return (out / "report.md").read_text(), list(csv.DictReader((out / "results.csv").open()))


@pytest.mark.parametrize("gains, row", [
    # Students from scratch have 50, 70 and 60 points, and those of KD so many more: 2 and 6, in the
    # mean 4.0 +- 12.7062 x 2.828 / sqrt(2). The 20 points between ann's and ben's do not count.
    ({"ann": 2, "ben": 6}, "| 4.0 ± 25.4 | 2 | 0.3 | not told apart from scratch |"),
    # A third hand narrows the interval: 4.3027 x 2 / sqrt(3).
    ({"ann": 2, "ben": 6, "cem": 4}, "| 4.0 ± 5.0 | 3 | 0.074 | not told apart from scratch |")])
def test_differences_of_all_the_class_are_paired_by_seed(hand_in, tmp_path, gains, row):
    scratch, folders = {"ann": 50, "ben": 70, "cem": 60}, []
    for i, (name, gain) in enumerate(gains.items(), start=1):
        points = scratch[name]
        folders.append(hand_in(name, {("scratch", 10 * i): points / 100,
                                      ("kd", 10 * i): (points + gain) / 100}))
    text, rows = collect_into(tmp_path / "all", *folders)
    assert row in text and (tmp_path / "all" / "scores.png").stat().st_size > 2000
    assert [(one["strategy"], int(one["seed"]), float(one["score"])) for one in rows] == [
        (strategy, 10 * i, scratch[name] + gains[name] * (strategy == "kd"))
        for strategy in ("scratch", "kd") for i, name in enumerate(gains, start=1)]


@pytest.mark.parametrize("teachers, words", [
    (("other/bert", "None"), "(one of each comparison's own, other/bert)"),
    (("None", "None"), "(trained here with 3.00e12 FLOPs)")])
def test_teachers_of_different_names_are_named(hand_in, tmp_path, no_figures, teachers, words):
    folders = [hand_in(name, {("scratch", seed): 0.5}, teacher=teacher)
               for name, seed, teacher in zip(("ann", "ben"), (10, 20), teachers)]
    assert f"teacher BERT 4x128 {words}" in collect_into(tmp_path / "all", *folders)[0]


def test_the_teachers_score_is_shown_where_all_had_the_same(hand_in, tmp_path, monkeypatch):
    folders = [hand_in("ann", {("scratch", 10): 0.5}), hand_in("ben", {("scratch", 20): 0.7})]
    shown = []
    monkeypatch.setattr(report, "draw_scores", lambda *figure: shown.append(figure[-1]["score"]))
    collect_into(tmp_path / "none", *folders)
    for folder, accuracy in zip(folders, (0.9, 0.8)):
        task, = cells.tasks_of(str(tmp_path / "glue"), "rte")
        (Path(folder) / "teacher-scores").mkdir()
        disk.write_json(Path(folder) / "teacher-scores" / "glue.json", fine_tunings(task, accuracy))
        collect_into(tmp_path / f"{accuracy}", *folders)
    assert [levels.get("teacher") for levels in shown] == [None, pytest.approx(90), None]


def test_a_report_of_its_own_and_what_is_collected_are_not_written_over(hand_in, tmp_path,
                                                                       no_figures):
    ann = hand_in("ann", {("scratch", 10): 0.5})
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
        hand_in, tmp_path, no_figures):
    ann = hand_in("ann", {("scratch", 10): 0.5})
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
def test_each_student_that_is_left_out_is_named(hand_in, tmp_path, capsys, no_figures, spoil, why):
    ann = hand_in("ann", {("scratch", 10): 0.5, ("kd", 10): 0.6})
    spoil(tmp_path / "ann" / "cells" / "kd-1.00e12-all-seed10")
    _, rows = collect_into(tmp_path / "all", ann)
    assert {row["strategy"] for row in rows} == {"scratch"}
    line, = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert line.startswith(f"left out: {ann}/cells/kd") and line.endswith(why)


def test_what_cannot_be_collected_ends_in_one_line(hand_in, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    disk.write_json(tmp_path / "old" / "compare.json", {"tasks": "rte"})
    ann, ben = hand_in("ann", {("scratch", 10): 0.5}), hand_in("ben", {("scratch", 10): 0.7})
    other = hand_in("other", {("scratch", 10): 0.5})
    edit(next(Path(other).glob("cells/*/run.json")),
         lambda record: record["settings"].update(model="4x128"))
    mistakes = (([str(tmp_path / "empty")], "is no comparison's folder"),
                ([str(tmp_path / "old")], "does not say model"),
                ([hand_in("kd", {("kd", 10): 0.5})], "no student from scratch"),
                ([ann, ben], "are the same student: give each comparison a --first-seed of its"),
                ([ann, hand_in("lr", {("scratch", 20): 0.5}, lr="0.001")],
                 "another comparison than .*: lr is 0.001 here and None there"),
                ([other], r"is not what its name says \(model\)"))
    for folders, message in mistakes:
        with pytest.raises(UserError, match=message):
            collect_into(tmp_path / "all", *folders)
    assert not (tmp_path / "all").exists()
