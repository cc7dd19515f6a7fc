"""progress.py: tqdm's bar in a terminal, and anywhere else lines that a log can keep."""
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from program import progress

import pytest
from conftest import ROOT
from tqdm import tqdm

TRILLION = 10 ** 12


class Clock:
    """A clock that stands still, until a test sets it forward."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def stderr(capsys):
    """stderr() -> what was printed there."""
    return lambda: capsys.readouterr().err


def work(clock, units, seconds, total, **options):
    """Does so many units of work, each in so many seconds."""
    with progress.bar(total, "step", **options) as bar:
        for _ in range(units):
            clock.now += seconds
            bar.update()
    return bar


def test_a_log_gets_a_line_after_each_tenth(clock, stderr):
    work(clock, 200, 1.0, total=200)
    shares = re.findall(r"^(\d+)%, ", stderr(), re.M)
    assert shares == ["10", "20", "30", "40", "50", "60", "70", "80", "90", "100"]


def test_a_long_work_gets_a_line_each_minute(clock, stderr):
    work(clock, 9, 31.0, total=1000)
    lines = stderr().splitlines()
    assert [line.split(",")[1] for line in lines] == [
        " 2 of 1000 step", " 4 of 1000 step", " 6 of 1000 step", " 8 of 1000 step",
        " 9 of 1000 step"]  # and one where it ended


def test_a_short_work_gets_one_line(clock, stderr):
    work(clock, 16, 0.0625, total=16)
    assert stderr() == "100%, 16 of 16 step, 00:01 so far, 00:00 left, 16.00step/s\n"


def test_work_of_unknown_length_gets_a_line_each_minute(clock, stderr):
    with progress.bar(None, " tokens", "tokenizing book", unit_scale=True) as bar:
        for _ in range(5):
            clock.now += 31
            bar.update(620_000)
    assert stderr().splitlines() == [
        "tokenizing book: 1.24M tokens, 01:02 so far, 20.0k tokens/s",
        "tokenizing book: 2.48M tokens, 02:04 so far, 20.0k tokens/s",
        "tokenizing book: 3.10M tokens, 02:35 so far, 20.0k tokens/s"]


def test_a_line_has_the_facts_of_the_bar(clock, stderr):
    with progress.bar(10 * TRILLION, "FLOP", "students", unit_scale=True) as bar:
        bar.set_postfix_str("loss 3.214, 61% of peak")
        clock.now += 12
        bar.update(3 * TRILLION)
    line = stderr()
    assert line == (
        "students: 30%, 3.00T of 10.0T FLOP, 00:12 so far, 00:28 left, 250GFLOP/s, loss 3.214, "
        "61% of peak\n")
    drawn = tqdm.format_meter(3 * TRILLION, 10 * TRILLION, 12, unit="FLOP", unit_scale=True,
                              prefix="students", postfix="loss 3.214, 61% of peak")
    for fact in re.findall(r"[\w.:%]+", re.sub(r"\|.*\|", " ", drawn)):
        assert fact in line


def test_the_speed_of_work_that_is_continued_is_that_of_what_is_new(clock, stderr):
    work(clock, 30, 1.0, total=100, initial=60)
    lines = stderr().splitlines()
    assert lines[0] == "70%, 70 of 100 step, 00:10 so far, 00:30 left, 1.00step/s"
    assert lines[-1].startswith("90%")


BECOMES_BUSY = [1.0] * 50 + [4.0] * 30  # seconds of each of 80 steps


def test_what_is_left_is_told_by_the_speed_of_the_last_30_percent(clock, stderr):
    with progress.bar(100, "step") as bar:
        for seconds in BECOMES_BUSY:
            clock.now += seconds
            bar.update()
    lines = stderr().splitlines()
    assert lines[4] == "50%, 50 of 100 step, 00:50 so far, 00:50 left, 1.00step/s"
    assert lines[-1] == "80%, 80 of 100 step, 02:50 so far, 01:20 left, 4.00s/step"


def test_a_bar_in_a_terminal_has_the_same_speed(clock):
    with progress.Bar(100, "step", file=io.StringIO()) as bar:
        for seconds in BECOMES_BUSY:
            clock.now += seconds
            bar.update()
        assert bar.format_dict["rate"] == 0.25


def test_work_without_a_unit_shows_its_share_and_its_times(clock, stderr):
    with progress.bar(90.0, None, "students") as bar:
        bar.set_postfix_str("1 of 3 ended")
        clock.now += 12
        bar.update(27.0)
    assert stderr() == "students: 30%, 00:12 so far, 00:28 left, 1 of 3 ended\n"


def test_an_error_leaves_whole_lines_and_where_it_happened(clock, stderr):
    with pytest.raises(KeyboardInterrupt), progress.bar(100, "step") as bar:
        clock.now += 5
        bar.update(15)
        bar.update(3)
        raise KeyboardInterrupt
    lines = stderr().splitlines(keepends=True)
    assert [line[:3] for line in lines] == ["15%", "18%"]
    assert all(line.endswith("step/s\n") for line in lines)


def test_nothing_is_printed_where_nothing_was_done_or_another_process_prints(clock, stderr):
    work(clock, 0, 1.0, total=100)
    work(clock, 100, 100.0, total=100, disable=True)
    assert stderr() == ""


def test_lines_on_stdout_stay_whole(clock, capsys):
    with progress.bar(4, "step") as bar:
        clock.now += 5
        bar.update(3)
        bar.write("a line")
    assert capsys.readouterr().out == "a line\n"


# --------------------------------------------------------------------------------------------------
# A real stderr

PROGRAM = """
from program import progress
with progress.bar(4, "step", "steps") as bar:
    for _ in range(4):
        bar.update()
    bar.write("a line on stdout")
"""


def test_a_pipe_gets_lines_without_carriage_returns_or_escapes(python):
    done = python("-c", PROGRAM)
    assert done.stdout == "a line on stdout\n"
    assert re.fullmatch(r"steps: 100%, 4 of 4 step, .*\n", done.stderr)
    assert "\r" not in done.stderr and "\x1b" not in done.stderr


def test_a_terminal_gets_tqdms_bar():
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # its size
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=terminal, cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    os.close(terminal)
    drawn = b""
    try:
        while chunk := os.read(ours, 4096):
            drawn += chunk
    except OSError:  # how Linux says that the other side was closed
        pass
    os.close(ours)
    assert program.communicate(timeout=120)[0] == "a line on stdout\n" and program.returncode == 0
    assert b"\rsteps: 100%|" in drawn and re.search(rb"\| 4/4 \[00:\d\d<", drawn)
