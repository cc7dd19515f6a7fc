"""reporting/cells.py: a grid in which all but the strategy is equal; what a cell left behind is
believed only where it is what the cell made."""
import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

from files import disk
from plumbing.cli import UserError

import pytest
import torch

import glue
from reporting import cells, collect
from reporting import options as comparison
from reporting.cells import Cell


@pytest.fixture
def comparison(tmp_path):
    """(args, a cell from scratch) of a comparison at 1e12 FLOPs."""
    args = comparison.compare(["--out", str(tmp_path)])
    return args, cells.cell_of(args, "T", "scratch", 10 ** 12, None, 0, None)


def leave_record(cell, **changes):
    """The run.json that an unfinished run of the cell leaves, with some settings changed."""
    settings = {"flops_budget": cell.flops, "seed": cell.seed, "strategy": cell.strategy,
                "unique_tokens": cell.unique_tokens, "model": "2x128", **changes}
    cell.folder.mkdir(parents=True, exist_ok=True)
    disk.write_json(cell.folder / "run.json", {"settings": settings, "finished": False})


# --------------------------------------------------------------------------------------------------
# The grid

def without(flags, words):
    """A command line without some flags and their values."""
    words = list(words)
    for flag in flags:
        if flag in words:
            place = words.index(flag)
            del words[place:place + 2]
    return words


def test_all_but_the_strategy_is_equal():
    args = comparison.compare(["--strategies", "scratch,kd,tinybert", "--seeds", "1",
                            "--unique-tokens", "inf"])
    students = cells.grid(args, "T", dict.fromkeys(args.strategies))

    def rest(cell):
        return without(("--strategy", "--teacher", "--tokenizer", "--out"), cell.commands[0])
    assert len(students) == 3 and all(rest(cell) == rest(students[0]) for cell in students)
    assert [cell.commands[1][2:] for cell in students] == [students[0].commands[1][2:]] * 3


def test_the_grid_is_every_combination_once():
    args = comparison.compare(["--strategies", "scratch,kd", "--budgets", "1e12,3e12", "--seeds", "3",
                            "--unique-tokens", "inf,1e4"])
    students = cells.grid(args, "T", dict.fromkeys(args.strategies))
    kinds = {cell[:4] for cell in students}
    assert len(students) == len(kinds) == 2 * 2 * 2 * 3
    assert len({cell.folder for cell in students}) == 24


def test_a_student_with_copied_layers_differs_from_its_strategy_by_its_first_weights_alone():
    args = comparison.compare(["--strategies", "scratch,scratch-copied,kd,kd-copied", "--seeds", "1",
                            "--unique-tokens", "inf", "--distil-options", "--mlm-finish 0.3"])
    students = cells.grid(args, "T", dict.fromkeys(args.strategies))
    words = {cell.strategy: list(cell.commands[0][:-2]) for cell in students}  # without --out
    assert words["kd-copied"] == [*words["kd"], "--init", "teacher"]
    # From scratch the teacher gives layers and the tokenizer, and no lesson.
    assert words["scratch-copied"] == [*words["scratch"][:-2], "--teacher", "T",
                                       "--init", "teacher"]


def test_strategies_that_read_predictions_have_the_teacher_with_a_head():
    args = comparison.compare(["--strategies", "scratch,kd,kd-released,tinybert,minilm", "--seeds",
                            "1", "--unique-tokens", "inf", "--teacher", "T", "--head-teacher", "H",
                            "--teacher-model", "4x128"])
    students = cells.grid(args, "T", dict.fromkeys(args.strategies))
    teachers = {cell.strategy: cell.commands[0][cell.commands[0].index("--teacher") + 1]
                for cell in students if "--teacher" in cell.commands[0]}
    assert teachers == {"kd": "H", "kd-released": "H", "tinybert": "T", "minilm": "T"}


def test_a_student_of_the_teacher_with_a_head_is_known_by_that_teacher(comparison):
    args, _ = comparison
    args.head_teacher, args.teacher_sha256, args.head_sha256 = "H", "a" * 64, "b" * 64
    for strategy, sha256 in (("kd", "b" * 64), ("tinybert", "a" * 64)):
        cell = cells.cell_of(args, "T", strategy, 10 ** 12, None, 0, None)
        leave_record(cell, teacher_sha256=sha256)
        assert cells.outcome(cell, args) is None  # not finished, and not refused


def test_a_student_without_copied_layers_is_not_taken_for_one_with_them(comparison):
    args, _ = comparison
    args.teacher_sha256 = "a" * 64
    cell = cells.cell_of(args, "T", "kd-copied", 10 ** 12, None, 0, None)
    leave_record(cell, strategy="kd", teacher_sha256="a" * 64, init="random")
    with pytest.raises(UserError, match=r"is not what its name says \(init\)"):
        cells.outcome(cell, args)


def test_the_teacher_is_scored_as_the_students_are(comparison):
    args, cell = comparison
    scored = cells.scores_of_teacher(args, "T")
    [command] = scored.commands
    assert without(("--out",), command[2:]) == list(cell.commands[1][2:])
    assert command[1] == "T"


@pytest.mark.parametrize("strategy, flops, unique_tokens, seed, lr", [
    ("scratch", 10 ** 12, None, 0, None), ("kd-released", 1234567890123, 10_000, 10, 0.0005),
    ("minilm-v1", 3 * 10 ** 18, 2_600_000_001, 7, 1e-05)])
def test_the_name_of_a_cell_says_exactly_which_student_it_is(strategy, flops, unique_tokens, seed,
                                                            lr):
    name = cells.cell_name(strategy, flops, unique_tokens, seed, lr)
    cell = collect.cell_from(collect.CELL_NAME.fullmatch(name), Path(name))
    assert cell[:5] == (strategy, flops, unique_tokens, seed, lr)


# --------------------------------------------------------------------------------------------------
# What a cell left behind

def test_a_damaged_record_beside_a_checkpoint_is_a_cell_to_continue(comparison):
    args, cell = comparison
    cell.folder.mkdir(parents=True)
    (cell.folder / "run.json").write_text("{")
    with pytest.raises(disk.Damaged):
        cells.outcome(cell, args)
    (cell.folder / "checkpoint-000000000010.pt").touch()
    assert cells.outcome(cell, args) is None


def test_a_cell_without_a_record_or_with_an_unfinished_one_is_to_run(comparison):
    args, cell = comparison
    assert cells.outcome(cell, args) is None
    leave_record(cell)
    assert cells.outcome(cell, args) is None


@pytest.mark.parametrize("key, value", [
    ("seed", 5), ("flops_budget", 1), ("strategy", "kd"), ("model", "2x64"),
    ("unique_tokens", 9)])
def test_a_cell_that_is_not_what_its_name_says_is_refused(comparison, key, value):
    args, cell = comparison
    leave_record(cell, **{key: value})
    with pytest.raises(UserError, match=rf"is not what its name says \({key}\)"):
        cells.outcome(cell, args)


def test_an_edited_record_does_not_match_its_checksum(comparison):
    args, cell = comparison
    leave_record(cell)
    path = cell.folder / "run.json"
    record = json.loads(path.read_text())
    record["settings"]["seed"] = 5
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not match its checksum"):
        cells.outcome(cell, args)


def test_a_student_of_another_teacher_is_refused(comparison):
    args, _ = comparison
    args.teacher_sha256 = "a" * 64
    cell = cells.cell_of(args, "T", "kd", 10 ** 12, None, 0, None)
    leave_record(cell, teacher_sha256="b" * 64)
    with pytest.raises(UserError, match=r"is not what its name says \(teacher_sha256\)"):
        cells.outcome(cell, args)


def test_students_of_an_edited_text_are_not_compared(comparison):
    args, _ = comparison
    args.data = "a.txt"
    students = [cells.cell_of(args, "T", strategy, 10 ** 12, None, 0, None)
                for strategy in ("scratch", "kd")]
    outcomes = {cell: {"record": {"settings": {"text_sha256": "a"}}} for cell in students}
    cells.check_texts(outcomes, args)
    outcomes[students[1]]["record"]["settings"]["text_sha256"] = "b"
    with pytest.raises(UserError, match="kd.* and .*scratch.* were trained on different texts"):
        cells.check_texts(outcomes, args)


# --------------------------------------------------------------------------------------------------
# The folder

def test_a_folder_of_which_nothing_was_begun_takes_the_corrected_command(comparison):
    args, _ = comparison
    args.data = "bokks.txt"
    cells.claim_folder(args)
    args.data = "books.txt"
    cells.claim_folder(args)
    assert disk.read_json(args.out / "compare.json")["data"] == "books.txt"


@pytest.mark.parametrize("made", ["students.zip", "report.md", "teacher-scores/glue.json"])
def test_a_comparison_without_its_cells_is_not_written_over(comparison, made):
    args, _ = comparison
    cells.claim_folder(args)
    path = args.out / made
    path.parent.mkdir(exist_ok=True)
    path.touch()
    args.glue_seeds += 1
    with pytest.raises(UserError, match="holds another comparison .glue_seeds was"):
        cells.claim_folder(args)


@pytest.mark.parametrize("typed", ["runs/t/", "./runs/t", "runs//t"])
def test_a_teacher_that_an_earlier_version_kept_as_it_was_typed_is_the_same(tmp_path, typed):
    args = comparison.compare(["--out", str(tmp_path), "--teacher", "runs/t"])
    cells.claim_folder(args)
    (tmp_path / "report.md").touch()
    settings = disk.read_json(tmp_path / "compare.json")
    disk.write_json(tmp_path / "compare.json", {**settings, "teacher": typed})
    cells.claim_folder(args)


def test_a_folder_holds_one_comparison(comparison):
    args, cell = comparison
    cells.claim_folder(args)
    cells.claim_folder(args)  # the same one again
    leave_record(cell)
    args.teacher_flops += 1
    with pytest.raises(UserError, match="holds another comparison .teacher_flops was"):
        cells.claim_folder(args)


def test_the_options_of_glue_are_part_of_the_command_and_of_what_is_compared(tmp_path):
    argv = ["--out", str(tmp_path), "--glue-options", "--dtype fp32 --pool cls"]
    args = comparison.compare(argv)
    cell = cells.cell_of(args, "T", "scratch", 10 ** 12, None, 0, None)
    scoring = glue.read_settings(cell.commands[1][1:])
    assert (scoring.dtype, scoring.pool) == ("fp32", "cls")
    cells.claim_folder(args)
    leave_record(cell)
    with pytest.raises(UserError, match="glue_options was --dtype fp32 --pool cls and is now"):
        cells.claim_folder(comparison.compare(argv[:2]))


def test_the_scores_of_a_cell_are_those_in_the_precision_that_was_asked_for(tmp_path, monkeypatch):
    def selected(device, dtype):
        return torch.device("cpu"), {"auto": "bf16"}.get(dtype, dtype)
    monkeypatch.setattr(cells.hardware, "select", selected)
    asked = []
    monkeypatch.setattr(cells.gluejson, "find", lambda kept, cell: asked.append(cell["dtype"]))
    for words, dtype in (("", "bf16"), ("--dtype fp32", "fp32")):
        args = comparison.compare(["--out", str(tmp_path), "--glue-options", words])
        cell = cells.cell_of(args, "T", "scratch", 10 ** 12, None, 0, None)
        leave_record(cell)
        record = disk.read_json(cell.folder / "run.json")
        disk.write_json(cell.folder / "run.json", {**record, "finished": True})
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (cell.folder / name).write_text("{}")
        asked.clear()
        cells.outcome(cell, args)
        assert set(asked) == {dtype}


def test_a_comparison_that_an_earlier_version_began_goes_on(comparison):
    args, _ = comparison
    cells.claim_folder(args)
    path = args.out / "compare.json"
    earlier = disk.read_json(path)
    del earlier["glue_options"]  # which there was not
    disk.write_json(path, earlier)
    cells.claim_folder(args)
    assert disk.read_json(path)["glue_options"] == ""


def test_a_folder_with_other_files_is_refused_and_leftovers_of_a_kill_are_not(comparison):
    args, _ = comparison
    (args.out / ".compare.json.123.tmp").write_text("{")
    (args.out / "notes.txt").touch()
    with pytest.raises(UserError, match="holds other files"):
        cells.check_folder(args)
    (args.out / "notes.txt").unlink()
    cells.check_folder(args)
    cells.claim_folder(args)


# --------------------------------------------------------------------------------------------------
# Running

def test_a_failed_cell_does_not_stop_the_others_and_is_told_by_its_last_line(tmp_path, capsys):
    args = comparison.compare(["--out", str(tmp_path), "--jobs", "2"])
    lines = {"fails": ("budget.py", "--flops", "lots"), "works": ("budget.py", "--flops", "1e13")}
    queue = [Cell("scratch", 10 ** 12, None, 0, None, tmp_path / "cells" / name, (line,))
             for name, line in lines.items()]
    with open(tmp_path / "lock", "w") as args.lock:
        failed = cells.run(queue, args, "students")
    assert list(failed) == ["fails"] and failed["fails"].startswith("error: ")
    assert "1.00e13 FLOPs buy" in (tmp_path / "logs" / "works.txt").read_text()
    assert "failed: fails: error: " in capsys.readouterr().out


def start_program(folder, text, jobs=1):
    """Starts a cell that runs a program. Returns (process, its output file, the path of its log).
    """
    args = SimpleNamespace(out=folder, jobs=jobs)
    (folder / "logs").mkdir()
    program = folder / "program.py"  # an absolute path replaces the project's folder
    program.write_text(text)
    cell = Cell("scratch", 10 ** 12, None, 0, None, folder / "cell", ((str(program),),))
    with open(folder / "lock", "w") as args.lock:
        return *cells.start(cell, args), cells.log_of(args, cell)


def test_a_cell_is_no_process_of_the_run_that_the_environment_speaks_of(tmp_path, monkeypatch):
    # What torchrun's documentation lists, and what it sets besides. A cell would wait for the rest.
    names = ["RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
             "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
             "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID",
             "TORCHELASTIC_USE_AGENT_STORE"]
    for name in [*names, "MY_RANK", "RANKS"]:
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(cells, "cores", lambda: 6)
    process, output, log = start_program(
        tmp_path, "import json, os\nprint(json.dumps(dict(os.environ)))", jobs=2)
    with output:
        assert process.wait() == 0
    environment = json.loads(log.read_text())
    assert not environment.keys() & set(names) and environment.keys() >= {"MY_RANK", "RANKS"}
    assert environment["OMP_NUM_THREADS"] == "3"  # the cores are shared out among the cells


@pytest.mark.parametrize("at_start", [signal.default_int_handler,
                                      signal.SIG_IGN])  # a script with `&` starts a program so
def test_what_ends_the_comparison_ends_its_cells(tmp_path, at_start):
    before = signal.signal(signal.SIGINT, at_start)
    try:
        process, output, log = start_program(
            tmp_path, "import time\nprint('begun', flush=True)\ntime.sleep(60)\nprint('ended')")
    finally:
        signal.signal(signal.SIGINT, before)
    with output, pytest.raises(KeyboardInterrupt), cells.stopping([process]):
        while "begun" not in log.read_text() and process.poll() is None:
            time.sleep(0.05)
        raise KeyboardInterrupt
    text = log.read_text()
    assert process.returncode and "begun" in text and "ended" not in text
