"""compare.py: a grid of cells, each a line of shell; a killed comparison continues, a failed cell does not stop the others."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from plumbing import options

import pytest

import compare
from reporting import cells

ROOT = Path(compare.__file__).parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A comparison of seconds: four students and a teacher on stories, scored on a made-up RTE."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "glue" / "RTE").mkdir(parents=True)
    for part in ("train", "dev"):
        (folder / "glue" / "RTE" / f"{part}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(
            f"{i}\tmia had a {'hat' if i % 2 else 'coat'}.\tmia had a hat.\t{'entailment' if i % 2 else 'not_entailment'}\n" for i in range(32)))
    os.environ["ISOFLOP_CACHE"] = str(folder / "cache")
    yield folder, ["--strategies", "scratch,kd", "--budgets", "1e9", "--unique-tokens", "inf", "--seeds", "2", "--model", "1x64", "--teacher-model", "1x64",
                   "--teacher-flops", "2e10", "--glue-data", str(folder / "glue"), "--tasks", "rte", "--jobs", "2"]
    del os.environ["ISOFLOP_CACHE"]


def start(*arguments):
    return subprocess.Popen([sys.executable, "compare.py", *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def test_a_killed_comparison_continues_and_a_failed_cell_does_not_stop_the_others(tiny):
    folder, line = tiny
    status, out, err = run(*line, "--out", folder / "whole")
    assert status == 0 and "report.md" in out, err
    process = start(*line, "--out", folder / "killed")
    while process.poll() is None and not list((folder / "killed" / "cells").glob("*/glue.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues" in out and "Traceback" not in err
    status, out, err = run(*line, "--out", folder / "killed")
    assert status == 0, err
    assert (folder / "killed" / "results.csv").read_bytes() == (folder / "whole" / "results.csv").read_bytes()
    # One batch needs 1,024 tokens, so the students on 100 fail; those on all tokens are finished already, and stay.
    line[line.index("inf")] = "inf,100"
    status, out, err = run(*line, "--out", folder / "whole")
    line[line.index("inf,100")] = "inf"
    assert status == 1 and out.count("failed: ") == 4 and "error: one batch of 32 x 32" in out and "Traceback" not in err
    assert "4 of 8 cells failed" in err and "Failed cells: " in (folder / "whole" / "report.md").read_text()


def test_an_edited_cell_and_another_grid_in_the_folder_are_refused(tiny):
    folder, line = tiny
    if not (folder / "whole").exists():
        pytest.skip("needs the comparison of the test above")
    path = folder / "whole" / "cells" / "kd-1.00e9-all-seed0" / "run.json"
    original = path.read_text()
    record = json.loads(original)
    record["settings"]["seed"] = 5
    path.write_text(json.dumps(record))
    status, out, err = run(*line, "--out", folder / "whole")
    assert status == 2 and "does not match its checksum" in err
    del record["checksum"]
    path.write_text(json.dumps(record))
    status, out, err = run(*line, "--out", folder / "whole")
    assert status == 2 and "is not what its name says (seed)" in err
    path.write_text(original)
    weights = path.parent / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\0\0\0\1")
    status, out, err = run(*line, "--out", folder / "whole")
    assert status == 2 and "not the one that was scored" in err
    weights.write_bytes(kept)
    line[line.index("--teacher-flops") + 1] = "3e10"
    status, out, err = run(*line, "--out", folder / "whole")
    line[line.index("--teacher-flops") + 1] = "2e10"
    assert status == 2 and "another comparison (teacher_flops was 20000000000" in err


def test_a_damaged_record_beside_a_checkpoint_is_a_cell_to_continue(tmp_path):
    args = options.compare(["--out", str(tmp_path)])
    cell = cells.cell_of(args, "T", "scratch", 10 ** 12, None, 0, None)
    cell.folder.mkdir(parents=True)
    (cell.folder / "run.json").write_text("{")
    with pytest.raises(compare.disk.Damaged):
        cells.outcome(cell, args)
    (cell.folder / "checkpoint-000000000010.safetensors").touch()
    assert cells.outcome(cell, args) is None


def test_a_comparison_that_was_killed_in_its_first_write_goes_on(tiny, tmp_path):
    (tmp_path / ".compare.json.123.tmp").write_text("{")
    folder, line = tiny
    status, out, err = run(*line, "--teacher", tmp_path / "none", "--teacher-model", "1x64", "--out", tmp_path)
    assert status == 2 and "is no hub id" in err  # the next thing that is wrong, not "holds other files"


def test_cells_are_lines_of_shell_teachers_first(tiny):
    folder, line = tiny
    status, out, err = run(*line, "--out", "runs/x", "--list")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 5 and lines[0].startswith("python train.py --strategy scratch --flops 2.00e10 --model 1x64")
    assert all(" && python glue.py runs/x/cells/" in line and "FLOPs, about" in line for line in lines[1:])
    assert not (ROOT / "runs" / "x").exists()


def test_all_but_the_strategy_is_equal():
    args = options.compare(["--strategies", "scratch,kd,tinybert", "--seeds", "1", "--unique-tokens", "inf"])
    grid = cells.grid(args, "T", dict.fromkeys(args.strategies))
    def rest(cell):
        words = list(cell.commands[0])
        for flag in ("--strategy", "--teacher", "--tokenizer", "--out"):
            if flag in words:
                del words[words.index(flag):words.index(flag) + 2]
        return words
    assert len(cells) == 3 and all(rest(cell) == rest(cells[0]) for cell in cells)
    assert [cell.commands[1][2:] for cell in cells] == [cells[0].commands[1][2:]] * 3


def test_the_papers_study_has_a_price(tiny):
    status, out, err = run("--preset", "paper", "--dry-run")
    assert status == 0 and "16 students" in out and "8.40e19 FLOPs" in out and "H100" in out and "bert-base-uncased exists" in out


@pytest.mark.parametrize("arguments, message", [
    (["--strategies", "scratch,magic"], "'magic' is none of"), (["--strategies", "kd,minilm"], "has no scratch"), (["--preset", "huge"], "--preset"),
    (["--budgets", "lots"], "--budgets"), (["--teacher-flops", "1000"], "is no training for a teacher"), (["--seeds", "0"], "--seeds"),
    (["--model", "3x128"], "1, 2, 4 layers"), (["--train-options", "'--seq-len 64"], "No closing quotation"), (["--data", "my books'"], "No closing quotation")])
def test_bad_input_ends_in_one_line(tmp_path, arguments, message):
    status, out, err = run(*arguments, "--out", tmp_path / "out")
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last and "Traceback" not in err and not (tmp_path / "out").exists()
