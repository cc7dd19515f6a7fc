"""The fault campaign (faults.py): a slice of it, and the rules by which it disturbs and judges.

All of it: python tests/faults.py --minutes 30 --seed 1
"""
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the campaign forks, and reads /proc", allow_module_level=True)

import children
import faults
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


@pytest.fixture
def lane(tmp_path):
    return Lane(tmp_path, 0)


def works_long():
    time.sleep(60)


def ends_like_a_stopped_one():
    sys.exit(143)


@pytest.mark.slow
def test_nothing_is_lost_and_every_end_is_clear():
    command = [sys.executable, "tests/faults.py", "--minutes", "1.5", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    assert done.stdout.count("| 0 | 0 |") >= 11  # rows without loss


def test_a_program_that_is_slow_is_told_to_stop_and_that_is_a_clear_end(program, lane, monkeypatch):
    monkeypatch.setattr(inputs, "LIMIT", 0.2)
    inputs.answer(lane, program(works_long), [])


def test_an_end_with_143_that_nobody_asked_for_is_not_clear(program, lane):
    with pytest.raises(Wrong, match="status 143"):
        inputs.answer(lane, program(ends_like_a_stopped_one), [])


def test_a_program_that_does_not_obey_hangs(program):
    def ignores_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        works_long()
    child = Child(program(ignores_signals))
    while os.fstat(child.files[0].fileno()).st_size == 0:
        time.sleep(0.01)
    child.stop(seconds=0.2)
    assert child.complaint == "it hangs" and not child.killed


def test_a_signal_reaches_one_child_and_not_its_siblings(program):
    first, second = (Child(program(works_long)) for _ in range(2))
    first.stop()
    assert first.complaint is None
    assert not second.ends_within(0.3)
    second.stop()


def test_children_share_no_process_group_with_each_other_or_with_the_campaign(program):
    def prints_its_group():
        print(os.getpgrp())
    pair = [Child(program(prints_its_group)) for _ in range(2)]
    groups = []
    for child in pair:
        assert child.wait() == 0
        assert int(child.out) == child.pid
        groups.append(int(child.out))
    assert len({*groups, os.getpgrp()}) == 3


def test_no_signal_is_sent_to_a_process_that_has_ended(program, monkeypatch):
    child = Child(program(lambda: None))
    child.wait()  # from here on the system may give its number to another process
    monkeypatch.setattr(children.os, "kill", lambda *_: pytest.fail("a signal was sent"))
    child.send(signal.SIGTERM)
    child.stop()
    assert child.status == 0


def test_a_wrong_end_is_told_as_it_was_seen_although_it_does_not_happen_again(lane, monkeypatch):
    seen = []

    def wrong_at_first(lane, program, words):
        seen.append(words)
        if len(seen) == 1:
            raise Wrong("seen once")
    monkeypatch.setattr(inputs, "answer", wrong_at_first)
    monkeypatch.setattr(inputs, "flags_of", lambda program: ["--flops"])
    with pytest.raises(Wrong, match="^seen once$"):
        inputs.command_lines(lane, n=5)
    assert len(seen) == 5


def test_the_same_seed_makes_the_same_faults_however_fast_the_machine_is(tmp_path, monkeypatch):
    drawn, clock = [], SimpleNamespace(now=0.0)
    monkeypatch.setattr(faults, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def slow_or_quick(lane):
        drawn.append(lane.random.random())
        clock.now += pause
        return 1
    row = slow_or_quick, "name", 1
    monkeypatch.setattr(faults, "FAULTS", {"a": row, "b": row})
    firsts = []
    for pause in (0.3, 0.02):
        base = tmp_path / str(pause)
        base.mkdir()
        drawn.clear()
        faults.run_lane(base, 0, 0.2, 1, ["a"])
        n = len(drawn)
        faults.run_lane(base, 1, 0.2, 1, ["b"])
        firsts.append((drawn[0], drawn[n]))
    assert firsts[0] == firsts[1] and n > 1
