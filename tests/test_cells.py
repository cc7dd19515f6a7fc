"""reporting/cells.py: a grid in which all but the strategy is equal; what a cell left behind is
believed only where it is what the cell made."""
import contextlib
import json
import signal
import time

from files import disk
from program.cli import UserError

import pytest

import compare
import glue
import train
from reporting import cells
from reporting.cells import Cell


def study_of(out, *words):
    return compare.read_settings(["--strategies", "scratch,kd,tinybert,kd-copied", "--out",
                                  str(out), *words])


def cell_of(study, strategy):
    return cells.student(study, strategy, 10 ** 12, None, 0)


def leave_record(cell, **changes):
    """The run.json that an unfinished run of the cell leaves, with some settings changed."""
    settings = {"flops_budget": cell.flops, "seed": cell.seed, "unique_tokens": cell.unique_tokens,
                "strategy": cell.strategy.removesuffix("-copied"), "model": "2x128", **changes}
    cell.folder.mkdir(parents=True, exist_ok=True)
    disk.write_json(cell.folder / "run.json", {"settings": settings, "finished": False})


def students_of(*words):
    """{strategy: the words of its train.py, without --out} of a grid of one student each."""
    study = compare.read_settings(["--seeds", "1", "--unique-tokens", "inf", *words])
    return {cell.strategy: list(cell.commands[0][:-2]) for cell in compare.grid(study)}


def test_all_but_the_strategy_its_teacher_and_its_first_weights_is_equal():
    words = students_of("--strategies", "scratch,scratch-copied,kd,kd-copied,tinybert")
    asked = {name: vars(train.read_settings(line[1:])) for name, line in words.items()}
    for line in asked.values():
        for name in ("strategy", "teacher", "tokenizer", "init"):
            del line[name]
    assert all(line == asked["scratch"] for line in asked.values())
    assert words["kd-copied"] == [*words["kd"], "--init", "teacher"]
    # From scratch the teacher gives layers and the tokenizer, and no lesson.
    folder = words["scratch"][-1]
    assert words["scratch-copied"] == [*words["scratch"][:-2], "--teacher", folder,
                                       "--init", "teacher"]


def test_the_grid_is_every_combination_once():
    students = compare.grid(compare.read_settings(
        ["--strategies", "scratch,kd", "--seeds", "3", "--budgets", "1e12,3e12,3e12",
         "--unique-tokens", "inf,1e4,10000"]))
    assert len(students) == len({cell[:4] for cell in students}) == 2 * 2 * 2 * 3
    assert len({cell.folder for cell in students}) == 24


def test_strategies_that_read_predictions_have_the_teacher_with_a_head():
    students = students_of("--strategies", "scratch,kd,kd-released,tinybert,minilm", "--teacher",
                           "T", "--head-teacher", "H", "--teacher-model", "4x128")
    assert {strategy: train.read_settings(words[1:]).teacher
            for strategy, words in students.items()} == {
        "scratch": None, "kd": "H", "kd-released": "H", "tinybert": "T", "minilm": "T"}


def test_every_digit_of_a_rate_and_the_options_of_glue_arrive(tmp_path):
    study = study_of(tmp_path, "--lr", "0.00123456789", "--glue-options", "--dtype fp32 --pool cls",
                     "--glue-data", "books")
    train_words, glue_words = cell_of(study, "scratch").commands
    asked = glue.read_settings(glue_words[1:])
    assert train.read_settings(train_words[1:]).lr == 0.00123456789
    assert (asked.dtype, asked.pool, asked.data) == ("fp32", "cls", "books")
    # The teacher is scored as the students are.
    [command] = cells.scores_of_teacher(study, tmp_path).commands
    assert command[1] == str(tmp_path / "teacher") and command[2:-2] == glue_words[2:]


@pytest.mark.parametrize("strategy, changes, wrong", [
    ("scratch", {}, None), ("scratch", {"seed": 5}, "seed"),
    ("scratch", {"flops_budget": 1}, "flops_budget"), ("scratch", {"strategy": "kd"}, "strategy"),
    # Another teacher. That with a head is KD's, and only KD's.
    ("kd", {"teacher_sha256": "h"}, None), ("kd", {"teacher_sha256": "t"}, "teacher_sha256"),
    ("tinybert", {"teacher_sha256": "t"}, None),
    ("tinybert", {"teacher_sha256": "h"}, "teacher_sha256"),
    ("kd-copied", {"teacher_sha256": "h", "init": "teacher"}, None),
    ("kd-copied", {"teacher_sha256": "h", "init": "random"}, "init"),
    ("minilm", {"teacher_sha256": "t", "lr": 0.00123456789}, None),
    ("minilm", {"teacher_sha256": "t", "lr": 0.00123457}, "lr")])
def test_a_cell_that_is_not_what_its_name_says_is_refused(tmp_path, monkeypatch, strategy, changes,
                                                          wrong):
    monkeypatch.setattr(cells, "sha256_of", {"T": "t", "H": "h"}.get)
    study = study_of(tmp_path, "--teacher", "T", "--head-teacher", "H", "--teacher-model", "4x128",
                     "--strategies", "scratch,kd,tinybert,kd-copied,minilm", "--lr",
                     "minilm=0.00123456789")
    cell = cell_of(study, strategy)
    assert cells.outcome(cell, study) is None  # nothing is there: it is to run
    leave_record(cell, **changes)
    refused = pytest.raises(UserError, match=rf"is not what its name says \({wrong}\)")
    with refused if wrong else contextlib.nullcontext():
        assert cells.outcome(cell, study) is None  # not finished, and not refused


@pytest.mark.parametrize("data, other_seed, is_refused", [
    ("a.txt", 0, True), ("a.txt", 1, True), ("stories", 0, True),
    ("stories", 1, False)])  # of stories each seed has its own
def test_students_of_different_texts_are_not_compared(tmp_path, data, other_seed, is_refused):
    study = study_of(tmp_path, "--data", data)
    outcomes = {cells.student(study, strategy, 10 ** 12, None, seed):
                {"record": {"settings": {"text_sha256": sha256}}}
                for strategy, seed, sha256 in (("kd", 0, "a"), ("tinybert", other_seed, "b"))}
    refused = pytest.raises(UserError, match="was trained on another text")
    with refused if is_refused else contextlib.nullcontext():
        cells.check_texts(outcomes, study)


def test_a_folder_holds_one_comparison_and_nothing_else(tmp_path):
    study = study_of(tmp_path)
    other = study_of(tmp_path, "--teacher-flops", "3e13", "--lr", "1e-3")
    (tmp_path / ".compare.json.123.tmp").write_text("{")  # what a kill leaves
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        cells.claim_folder(study)
    (tmp_path / "notes.txt").unlink()
    cells.claim_folder(other)
    cells.claim_folder(study)  # nothing was begun: the folder is free
    leave_record(cell_of(study, "scratch"))
    cells.claim_folder(study)
    with pytest.raises(UserError, match="holds another comparison .teacher_flops was 10000000000000"
                                        " and is now 30000000000000; lr was None and is now 0.001"):
        cells.claim_folder(other)


@pytest.mark.parametrize("words, dtype", [("", None), ("--dtype fp32", "fp32")])
def test_scores_count_in_the_precision_that_was_asked_for(tmp_path, monkeypatch, words, dtype):
    asked = set()
    monkeypatch.setattr(cells.gluefiles, "finished_cell",
                        lambda kept, cell: asked.add(cell.get("dtype")))
    study = study_of(tmp_path, "--glue-options", words)
    assert cells.results_of(cell_of(study, "scratch"), study) is None and asked == {dtype}


@pytest.mark.parametrize("users, before, jobs, threads", [
    (None, None, 1, "6"), (None, None, 4, "1"), ("3", None, 2, "3"), (None, "2", 1, "2"),
    ("3", "2", 1, "3")])
def test_all_students_have_as_many_threads_as_the_first(tmp_path, monkeypatch, capsys, users,
                                                        before, jobs, threads):
    study = study_of(tmp_path, "--jobs", str(jobs))
    monkeypatch.setattr(cells.machine, "cores", lambda: 6)
    monkeypatch.setattr(cells, "USERS_THREADS", before)
    if before:
        cells.claim_folder(study)
        leave_record(cell_of(study, "scratch"))
    monkeypatch.setattr(cells, "USERS_THREADS", users)
    assert cells.claim_folder(study) == threads
    is_said = "OMP_NUM_THREADS is 3, and the students so far had 2" in capsys.readouterr().out
    assert is_said == bool(users and before)
    assert disk.read_json(tmp_path / "compare.json")["threads"] == threads


@pytest.mark.parametrize("at_start", [signal.default_int_handler,
                                      signal.SIG_IGN])  # a script with `&` starts a program so
def test_a_cell_ends_with_the_comparison_and_is_no_process_of_a_torchrun(tmp_path, monkeypatch,
                                                                         at_start):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"]
    for name in [*names, "MY_RANK"]:
        monkeypatch.setenv(name, "2")
    program, log = tmp_path / "program.py", tmp_path / "log.txt"
    program.write_text("import json, os, time\nprint(json.dumps(dict(os.environ)), flush=True)\n"
                       "time.sleep(60)\nprint('ended')")
    # An absolute path replaces the project's folder.
    cell = Cell("scratch", 10 ** 12, None, 0, None, tmp_path / "cell", ((str(program),),))
    before = signal.signal(signal.SIGINT, at_start)
    try:
        with open(tmp_path / "lock", "w") as lock:
            process = cells.start(cell, log, lock, "3")
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt), cells.stopping({process: log}):
        while "\n" not in log.read_text() and process.poll() is None:
            time.sleep(0.05)
        raise KeyboardInterrupt
    first, *others = log.read_text().splitlines()
    environment = json.loads(first)
    assert "ended" not in others
    assert process.returncode and environment["OMP_NUM_THREADS"] == "3"
    assert not environment.keys() & set(names) and "MY_RANK" in environment
