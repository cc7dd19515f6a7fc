"""compare.py: a killed comparison continues, a failed cell does not stop the others, and bad input
ends in one line."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder, options) of a comparison of seconds: four students and a teacher on stories, scored
    on a made-up RTE."""
    folder = tmp_path_factory.mktemp("tiny")
    rte = folder / "glue" / "RTE"
    rte.mkdir(parents=True)
    lines = ["index\tsentence1\tsentence2\tlabel"]
    for i in range(32):
        thing, label = (("coat", "not_entailment"), ("hat", "entailment"))[i % 2]
        lines.append(f"{i}\tmia had a {thing}.\tmia had a hat.\t{label}")
    for part in ("train", "dev"):
        (rte / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    os.environ["ISOFLOP_CACHE"] = str(folder / "cache")
    yield folder, {"--strategies": "scratch,kd", "--budgets": "1e9", "--unique-tokens": "inf",
                   "--seeds": "2", "--model": "1x64", "--teacher-model": "1x64",
                   "--teacher-flops": "2e10", "--glue-data": str(folder / "glue"),
                   "--tasks": "rte", "--jobs": "2"}
    del os.environ["ISOFLOP_CACHE"]


@pytest.fixture(scope="module")
def whole(tiny):
    """(folder, options, what was printed) of the tiny comparison, after nobody disturbed it."""
    folder, options = tiny
    status, out, err = run(options, folder / "whole")
    assert status == 0, err
    return folder / "whole", options, out


def start(options, out, *more):
    words = [word for option in options.items() for word in option]
    return subprocess.Popen([sys.executable, "compare.py", *words, "--out", str(out),
                             *map(str, more)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def run(options, out, *more):
    """(exit status, stdout, stderr). The limit is for a program that hangs, and far beyond what a
    busy machine needs."""
    process = start(options, out, *more)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


# --------------------------------------------------------------------------------------------------
# Whole comparisons, of minutes

@pytest.mark.slow
def test_a_killed_comparison_continues_to_the_same_results(whole):
    folder, options, printed = whole
    assert "report.md" in printed
    killed = folder.parent / "killed"
    process = start(options, killed)
    while process.poll() is None and not list((killed / "cells").glob("*/glue.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 130 and "the same command continues" in out
    assert "Traceback" not in err
    status, out, err = run(options, killed)
    assert status == 0, err
    results = [(path / "results.csv").read_bytes() for path in (killed, folder)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_others(whole):
    folder, options, _ = whole
    # One batch needs 1,024 tokens, so the students on 100 fail. Those on all tokens are finished
    # already, and stay.
    status, out, err = run({**options, "--unique-tokens": "inf,100"}, folder)
    assert status == 1 and out.count("failed: ") == 4 and "error: one batch of 32 x 32" in out
    assert "Traceback" not in err and "cells that failed: 4;" in err
    assert "Failed cells: " in (folder / "report.md").read_text()


@pytest.mark.slow
def test_an_edited_cell_and_another_grid_in_the_folder_are_refused(whole):
    folder, options, _ = whole
    path = folder / "cells" / "kd-1.00e9-all-seed0" / "run.json"
    original = path.read_text()
    record = json.loads(original)
    record["settings"]["seed"] = 5
    path.write_text(json.dumps(record))
    status, out, err = run(options, folder)
    assert status == 2 and "does not match its checksum" in err
    del record["checksum"]
    path.write_text(json.dumps(record))
    status, out, err = run(options, folder)
    assert status == 2 and "is not what its name says (seed)" in err
    path.write_text(original)
    weights = path.parent / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\0\0\0\1")
    status, out, err = run(options, folder)
    assert status == 2 and "not the one that was scored" in err
    weights.write_bytes(kept)
    status, out, err = run({**options, "--teacher-flops": "3e10"}, folder)
    assert status == 2 and "another comparison (teacher_flops was 20000000000" in err


# --------------------------------------------------------------------------------------------------
# What is said before anything runs

def test_a_comparison_that_was_killed_in_its_first_write_goes_on(tiny, tmp_path):
    (tmp_path / ".compare.json.123.tmp").write_text("{")
    status, out, err = run(tiny[1], tmp_path, "--teacher", tmp_path / "none")
    # It says the next thing that is wrong, and not "holds other files".
    assert status == 2 and "is no hub id" in err


def test_cells_are_lines_of_shell_teachers_first(tiny):
    status, out, err = run(tiny[1], "runs/x", "--list")
    first, *students = out.splitlines()
    assert status == 0 and len(students) == 4
    assert first.startswith("python train.py --strategy scratch --flops 2.00e10 --model 1x64")
    assert all(" && python glue.py runs/x/cells/" in line and "FLOPs, about" in line
               for line in students)
    assert not (ROOT / "runs" / "x").exists()


def test_the_papers_study_has_a_price(tmp_path):
    status, out, err = run({"--preset": "paper"}, tmp_path / "out", "--dry-run")
    assert status == 0 and "16 students" in out and "8.40e19 FLOPs" in out and "H100" in out
    assert "bert-base-uncased, a BERT 12x768 (12 layers, 768 wide), whose own training" in out


@pytest.mark.parametrize("option, value, message", [
    ("--strategies", "scratch,magic", "'magic' is none of"),
    ("--strategies", "kd,minilm", "has no scratch"), ("--preset", "huge", "--preset"),
    ("--budgets", "lots", "--budgets"), ("--seeds", "0", "--seeds"),
    ("--teacher-flops", "1000", "is no training for a teacher"),
    ("--model", "3x128", "1, 2, 4 layers"), ("--data", "my books'", "No closing quotation"),
    ("--train-options", "'--seq-len 64", "No closing quotation")])
def test_bad_input_ends_in_one_line(tmp_path, option, value, message):
    status, out, err = run({option: value}, tmp_path / "out")
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last
    assert "Traceback" not in err and not (tmp_path / "out").exists()
