"""progress.py: tqdm's bar in a terminal, and anywhere else lines that a log can keep."""
import fcntl
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


@pytest.mark.parametrize("total, unit, options, line", [
    (200, "step", {}, r"  50%\|#+\d? +\| 100/200 \[00:\d\d<00:\d\d, [\d.]+step/s\]"),
    (10 ** 13, "FLOP", {"desc": "students", "initial": 5 * 10 ** 12 - 100, "unit_scale": True},
     r"students:  50%\|.*\| 5.00T/10.0T \[.*FLOP/s\]"),
    (None, " tokens", {"desc": "tokenizing"}, r"tokenizing: 100 tokens \[00:\d\d, .* tokens/s\]")])
def test_a_log_gets_a_line_where_the_work_begins_and_one_where_it_ends(capsys, total, unit, options,
                                                                       line):
    with progress.bar(total, unit, **options) as bar:
        for _ in range(100):
            bar.update()
        bar.write("a line on stdout")
    out, err = capsys.readouterr()
    assert out == "a line on stdout\n" and err.count("\n") == 2
    assert re.fullmatch(line.strip(), err.splitlines()[-1].strip())


def test_a_long_work_gets_a_line_each_half_minute(capsys):
    with progress.bar(100, "step") as bar:
        for second in range(100):
            bar.start_t -= 1  # a second passes
            bar.last_print_t -= 1
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [re.search(r"(\d+)/100", line)[1] for line in lines] == ["0", "30", "60", "90", "100"]


def test_an_error_leaves_whole_lines_and_where_it_happened(capsys):
    with pytest.raises(KeyboardInterrupt), progress.bar(100, "step") as bar:
        bar.update(15)
        bar.set_postfix_str("loss 3.214", refresh=False)
        bar.update(3)
        raise KeyboardInterrupt
    err = capsys.readouterr().err
    assert " 18/100 [" in err.splitlines()[-1] and err.endswith(", loss 3.214]\n")


def test_nothing_is_printed_where_another_process_prints(capsys):
    with progress.bar(100, "step", disable=True) as bar:
        bar.update(50)
    assert capsys.readouterr().err == ""


PROGRAM = """
from program import progress
with progress.bar(4, "step", "steps") as bar:
    for _ in range(4):
        bar.update()
    bar.write("a line on stdout")
"""


def test_a_pipe_gets_lines_without_carriage_returns_or_escapes(python):
    done = python("-c", PROGRAM)
    assert done.stdout == "a line on stdout\n" and "\nsteps: 100%|" in done.stderr
    assert "\r" not in done.stderr and "\x1b" not in done.stderr


def test_a_terminal_gets_a_bar_that_is_drawn_over_itself():
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
