"""reporting/folders.py: runs are found where they lie, and what their files say is said of them."""
import json
import os

from files import disk

import pytest

from reporting import folders

SETTINGS = {"strategy": "scratch", "model": "2x64", "data": ["stories"], "unique_tokens": None,
            "vocab_size": 201, "flops_budget": 1000, "seed": 0}
LOSSES = {"val_loss": 3.5, "unigram_loss": 4.0, "neighbour_loss": 1.3}


def validation(flops, **losses):
    """A row of a log."""
    return {"step": flops, "flops": flops, "val_terms": {"mlm": 1.0}, **LOSSES, **losses}


def save_run(folder, rows=(), finished=True, record=(), **settings):
    """Writes run.json and log.jsonl as a run does that has such a log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    disk.write_json(folder / "run.json", {
        "finished": finished, "settings": {**SETTINGS, **settings},
        "files": {"log.jsonl": disk.file_sha256(folder / "log.jsonl")} if finished else {},
        **dict(record)})
    return folder


def names(found):
    return [run.name for run in found]


def test_runs_are_found_at_three_depths_and_what_holds_none_is_named_once(tmp_path, capsys):
    for name in ("tour", "compare/teacher", "compare/cells/kd-seed0", "a/b/too-deep"):
        save_run(tmp_path / name)
    for name in ("empty", "notes", "compare/logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "curves.png").write_text("")
    assert names(folders.runs_in(tmp_path)) == ["compare/cells/kd-seed0", "compare/teacher", "tour"]
    assert capsys.readouterr().out == "no run in a, empty and notes\n"


def test_how_far_a_run_is_stands_in_the_last_whole_line_of_its_log(tmp_path):
    folder = save_run(tmp_path / "run", [validation(0), {"flops": 250, "loss": 4}], finished=False)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"step": 300, "flo')
    run, = folders.runs_in(tmp_path)
    assert (run.finished, run.spent, len(run.validations)) == (False, 250, 1)


def test_a_run_without_a_log_has_just_begun(tmp_path):
    (save_run(tmp_path / "run", finished=False) / "log.jsonl").unlink()
    run, = folders.runs_in(tmp_path)
    assert (run.spent, run.validations, run.score) == (0, [], None)


def test_a_strategy_with_copied_layers_is_called_so(tmp_path):
    save_run(tmp_path / "a", strategy="kd", init="teacher")
    save_run(tmp_path / "b", strategy="kd", init="random")
    assert [run.strategy for run in folders.runs_in(tmp_path)] == ["kd-copied", "kd"]


def test_only_validations_of_masked_words_are_losses(tmp_path):
    own = {"step": 1, "flops": 1, "val_terms": {"tinybert": 0.1}}
    save_run(tmp_path / "run", [own, validation(2), validation(3, val_loss=float("nan"))])
    run, = folders.runs_in(tmp_path)
    assert [row["flops"] for row in run.losses] == [2] and len(run.validations) == 3


# --------------------------------------------------------------------------------------------------
# Damage


@pytest.mark.parametrize("damage, words", [
    (lambda folder: (folder / "run.json").write_text("[1]"), "not a JSON object"),
    (lambda folder: (folder / "log.jsonl").write_text("{}\n"), "log.jsonl is damaged"),
    (lambda folder: (folder / "run.json").write_text('{"settings": {"lr": 1}}'),
     "not that of a run"),
    (lambda folder: save_run(folder, flops_budget=0), "not that of a run"),
    (lambda folder: save_run(folder, record={"flops_before": "many"}), "not that of a run"),
    (lambda folder: save_run(folder, strategy="magic"), "no strategy 'magic'"),
    (lambda folder: save_run(folder, model="$\\x$"), "is no model size"),
    (lambda folder: disk.write_json(folder / "glue.json", {
        "cells": [{"task": "cola", "scores": {"dev": 3}}]}), "glue.json is damaged"),
    (lambda folder: (folder / "glue.json").write_text("{}"), "glue.json is damaged")])
def test_a_damaged_run_is_one_line_and_the_others_are_listed(tmp_path, capsys, damage, words):
    damage(save_run(tmp_path / "bad"))
    save_run(tmp_path / "good")
    assert names(folders.runs_in(tmp_path)) == ["good"]
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("skipped: bad: ") and words in line


def test_a_run_that_may_not_be_read_is_one_line(tmp_path, capsys, monkeypatch):
    save_run(tmp_path / "locked")
    save_run(tmp_path / "open")
    real = disk.read_json

    def read_json(path):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(disk, "read_json", read_json)
    assert names(folders.runs_in(tmp_path)) == ["open"]
    assert capsys.readouterr().out.startswith("skipped: locked: Permission denied")


# --------------------------------------------------------------------------------------------------
# Scores


def fine_tuning(task, dev, test=None, lr=1e-4, seed=0, **others):
    """A cell of glue.json. dev, test: the accuracies."""
    parts = {"dev": {"accuracy": dev}} | ({} if test is None else {"test": {"accuracy": test}})
    return {"task": task, "lr": lr, "batch_size": 16, "epochs": 2, "seed": seed, "seconds": 1.0,
            "data": "stories", "pool": "mean", "seq_len": 128, "scores": parts, **others}


def score(folder, *cells):
    disk.write_json(folder / "glue.json", {"cells": list(cells)})
    run, = folders.runs_in(folder.parent)
    return run.score


def test_the_score_is_the_mean_over_tasks_of_the_setting_that_was_best_in_development(tmp_path):
    folder = save_run(tmp_path / "run")
    assert folders.runs_in(tmp_path)[0].score is None
    # By hand: of a, the rate 2e-4 has the better development score, 0.75, and (0.6 + 0.8) / 2 on
    # the test set; b has no test set.
    a = [fine_tuning("a", 0.5, 0.9), fine_tuning("a", 0.7, 0.6, lr=2e-4),
         fine_tuning("a", 0.8, 0.8, lr=2e-4, seed=1)]
    assert score(folder, *a) == (pytest.approx(0.7), 1)
    assert score(folder, *a, fine_tuning("b", 0.3)) == (pytest.approx(0.5), 2)


def test_fine_tunings_that_were_made_in_another_way_than_the_newest_do_not_count(tmp_path):
    folder = save_run(tmp_path / "run")
    cells = fine_tuning("a", 0.9, pool="cls"), fine_tuning("b", 0.9, data="g"), fine_tuning("a", .4)
    assert score(folder, *cells) == (pytest.approx(0.4), 1)


def test_the_scores_of_another_model_in_the_same_folder_do_not_count(tmp_path):
    folder = save_run(tmp_path / "run")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    sha256 = disk.file_sha256(folder / "config.json", folder / "model.safetensors")
    old = fine_tuning("a", 0.9, model_sha256="0" * 16)
    assert score(folder, old) is None
    assert score(folder, old, fine_tuning("a", 0.4, model_sha256=sha256[:16])) == (0.4, 1)


def test_a_run_that_is_not_finished_has_no_score(tmp_path):
    assert score(save_run(tmp_path / "run", finished=False), fine_tuning("a", 0.4)) is None


def test_finding_changes_nothing(tmp_path):
    save_run(tmp_path / "run", [validation(1)])
    os.utime(tmp_path / "run", (1, 1))
    folders.runs_in(tmp_path)
    assert sorted(os.listdir(tmp_path / "run")) == ["log.jsonl", "run.json"]
    assert (tmp_path / "run").stat().st_mtime == 1
