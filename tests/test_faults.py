"""The fault campaign (faults.py): a slice of it, and the rules by which it disturbs and judges.

All of it: python tests/faults.py --minutes 30 --seed 1
"""
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the campaign forks, and reads /proc", allow_module_level=True)

import children
import inputs
from children import ROOT, Child
from undisturbed import Lane, Wrong


@pytest.fixture
def program(monkeypatch):
    """program(main) -> the name of a program, for Child, that is only this function."""
    def define(main):
        monkeypatch.setitem(sys.modules, "pretended", SimpleNamespace(main=main))
        return "pretended.py"
    return define


def works_long():
    time.sleep(60)


@pytest.mark.slow
def test_nothing_is_lost_and_every_end_is_clear():
    command = [sys.executable, "tests/faults.py", "--minutes", "1.5", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    assert done.stdout.count("| 0 | 0 |") >= 11  # rows without loss


def test_a_program_that_works_long_is_ended_and_one_that_ends_itself_must_end_clearly(
        program, tmp_path, monkeypatch):
    lane = Lane(tmp_path, "lane")
    monkeypatch.setattr(inputs, "LIMIT", 0.2)
    inputs.answer(lane, program(works_long), [])
    with pytest.raises(Wrong, match="status 143"):
        inputs.answer(lane, program(lambda: sys.exit(143)), [])


def test_a_program_that_does_not_end_hangs(program):
    child = Child(program(works_long))
    assert child.wait(0.5) < 0 and child.complaint == "it hangs" and not child.killed


def test_no_signal_is_sent_to_a_process_that_has_ended(program, monkeypatch):
    child = Child(program(lambda: None))
    child.wait()  # from here on the system may give its number to another process
    for name in ("kill", "killpg"):
        monkeypatch.setattr(children.os, name, lambda *_: pytest.fail("a signal was sent"))
    child.send(signal.SIGTERM)
    child.end()
    assert child.status == 0
