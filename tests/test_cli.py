"""Numbers are read as people write them, and what a user can mend ends in one line on stderr and exit status 2."""
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from plumbing import cli
from plumbing.cli import UserError

import pytest

ROOT = Path(cli.__file__).parent


# ---------------------------------------------------------------------------------------------------------------------
# Numbers

@pytest.mark.parametrize("text, value", [
    ("1e13", 10 ** 13), ("2.5e15", 2_500_000_000_000_000), ("5000", 5000), ("1", 1), ("1e30", 10 ** 30), (" 7 ", 7),
    ("1_000_000", 1_000_000), ("1E3", 1000),
    ("1e23", 10 ** 23),                                        # as a float it is 99999999999999991611392
    ("123456789012345678901", 123_456_789_012_345_678_901)])   # as a float it ends in 683968
def test_a_number_is_exact(text, value):
    assert cli.number(text) == value and type(cli.number(text)) is int


@pytest.mark.parametrize("text", ["", "many", "1e", "e5", "0", "-1", "-1e15", "0.5", "1.1e30", "1e31", "1e999999999", "nan",
                                  "sNaN", "inf", "-inf", "1,000", "0x10", "1e13 FLOPs", "1e99999999999999999999"])
def test_what_is_no_number_from_1_to_1e30_is_refused(text):
    with pytest.raises(UserError):
        cli.number(text)


@pytest.mark.parametrize("text, value", [("3", 3), ("1e3", 1000), ("1000.0", 1000), (" 12 ", 12), ("2", 2), ("+5", 5)])
def test_a_whole_number_may_have_an_exponent(text, value):
    parsed = cli.whole(2, 1000)(text)
    assert parsed == value and type(parsed) is int


@pytest.mark.parametrize("text", ["", "two", "1", "1001", "-3", "2.5", "1e4", "1e-1", "nan", "sNaN", "inf", "3 4"])
def test_what_is_not_whole_or_out_of_range_is_refused_with_the_range(text):
    with pytest.raises(UserError, match="from 2 to 1,000"):
        cli.whole(2, 1000)(text)


def test_a_whole_number_of_100_million_digits_is_refused_at_once(python):
    # It is to be compared with the range while it is a Decimal: writing it out as an int takes minutes, and nothing but the
    # kernel can interrupt that. So in a process of its own, with two seconds of CPU time.
    done = python("-c", "import cli, resource\nresource.setrlimit(resource.RLIMIT_CPU, (2, 2))\n"
                        "try:\n    cli.whole(2, 1000)('1e99999999')\nexcept cli.UserError:\n    print('refused')")
    assert (done.returncode, done.stdout) == (0, "refused\n")


@pytest.mark.parametrize("text, value", [("0.15", 0.15), ("0", 0.0), ("1", 1.0), ("1e-4", 0.0001), (" 0.5 ", 0.5)])
def test_a_real_number_is_read(text, value):
    assert cli.real(0, 1)(text) == value


@pytest.mark.parametrize("text", ["", "half", "-0.1", "1.0001", "nan", "inf", "-inf", "0,5"])
def test_a_real_number_out_of_range_is_refused_with_the_range(text):
    with pytest.raises(UserError, match="from 0 to 1$"):
        cli.real(0, 1)(text)


# ---------------------------------------------------------------------------------------------------------------------
# How a program ends. Each of these is a whole program, run in a process of its own.

def main_that(does):
    return f"import cli, errno, os, signal, sys\ndef main():\n    {does}\ncli.program(main)"


def test_a_program_that_ends_well_has_status_0(python):
    done = python("-c", main_that("print('done')"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_users_mistake_is_one_line_on_stderr_and_status_2(python):
    done = python("-c", main_that(r"raise cli.UserError('the text\n  is empty: give another')"))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: the text is empty: give another\n")


def test_running_out_of_memory_says_what_to_lower(python):
    done = python("-c", main_that("raise MemoryError"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: out of memory") and "--batch-size" in done.stderr


def test_a_full_disk_says_that_the_same_command_goes_on(python):
    done = python("-c", main_that("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'some/file')"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "some/file" in done.stderr and "run the same command again" in done.stderr


def test_a_missing_file_is_named(python):
    done = python("-c", main_that("open('no/such/file')"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "no/such/file" in done.stderr


def test_a_defect_of_the_program_keeps_its_traceback(python):
    done = python("-c", main_that("1 / 0"))
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_program_with_the_shells_status(python, signum, status):
    done = python("-c", main_that(f"os.kill(os.getpid(), {int(signum)}); signal.pause()"))
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_except_exception_does_not_swallow_a_signal(python, signum):
    done = python("-c", "import cli, os, signal\ndef main():\n    try:\n"
                        f"        os.kill(os.getpid(), {int(signum)}); signal.pause()\n"
                        "    except Exception:\n        print('swallowed')\ncli.program(main)")
    assert (done.returncode, done.stdout) == (128 + signum, "")


@pytest.mark.parametrize("main", [
    "try:\n        os.kill(os.getpid(), 15); signal.pause()\n    finally:\n        os.kill(os.getpid(), 2)",            # while the first is obeyed
    "os.kill(os.getpid(), 15); os.kill(os.getpid(), 2)",
    "try:\n        os.kill(os.getpid(), 15); signal.pause()\n    except BaseException:\n        raise ImportError"])  # what an import makes of it
def test_whatever_becomes_of_a_signal_the_status_is_its_own(python, main):
    done = python("-c", f"import cli, os, signal\ndef main():\n    {main}\ncli.program(main)")
    assert (done.returncode, done.stderr) == (143, "")


def test_a_signal_that_a_library_swallowed_can_be_repeated(python):
    done = python("-c", "import cli, os, signal, time\ndef main():\n    try:\n        os.kill(os.getpid(), 15); signal.pause()\n    except BaseException:\n        time.sleep(2.1)\n"
                        "    os.kill(os.getpid(), 15); signal.pause()\ncli.program(main)")
    assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.parametrize("length", [1, 10 ** 6])  # one waits in the buffer until the end, the other fails on its way
def test_a_reader_that_has_read_enough_is_no_error(python, length):
    reader, writer = os.pipe()
    os.close(reader)  # as `program | head` does, once head has its lines
    try:
        done = python("-c", main_that(f"print('x' * {length})"), stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")  # 128 + SIGPIPE, as the shell says it of any program


# ---------------------------------------------------------------------------------------------------------------------
# Options

def parser():
    made = cli.Parser(prog="demo.py")
    made.add_argument("--count", type=cli.whole(1, 10))
    made.add_argument("--kind", choices=["red", "blue"])
    return made


@pytest.mark.parametrize("arguments, named", [
    (["--count", "11"], "--count"), (["--kind", "green"], "--kind"), (["--size", "3"], "--size"), (["--count"], "--count"),
    (["surplus"], "surplus"), (["--coun", "3"], "--coun")])
def test_a_bad_option_is_named_and_the_help_is_pointed_to(arguments, named):
    with pytest.raises(UserError) as refusal:
        parser().parse_args(arguments)
    assert named in str(refusal.value) and "demo.py --help" in str(refusal.value)


def test_good_options_are_taken():
    args = parser().parse_args(["--count", "1e1", "--kind", "blue"])
    assert (args.count, args.kind) == (10, "blue")


def test_help_goes_to_stdout_with_status_0(python):
    done = python("-c", "import cli\ncli.program(cli.Parser(description='What it does.').parse_args)", "--help")
    assert done.returncode == 0 and "What it does." in done.stdout and done.stderr == ""


# ---------------------------------------------------------------------------------------------------------------------
# Signals in a training loop

@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_inside_signals_a_signal_is_only_noted(signum):
    before = signal.getsignal(signum)
    with cli.Signals() as signals:
        assert signals.stopped is None
        signal.raise_signal(signum)
        assert isinstance(signals.stopped, cli.Stopped) and signals.stopped.status == 128 + signum
    assert signal.getsignal(signum) is before


def test_a_second_signal_changes_nothing():
    with cli.Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        first = signals.stopped
        signal.raise_signal(signal.SIGINT)
        assert signals.stopped is first


def test_a_reader_of_everything_that_leaves_does_not_stop_a_run(tmp_path):
    # `2>&1 | head`: the bar's line on stderr fails, too
    done = subprocess.run(f"{sys.executable} train.py --flops 3e9 --model 1x64 --seq-len 16 --batch-size 8 --out {tmp_path / 'run'} 2>&1 | head -n 1", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads((tmp_path / "run" / "run.json").read_text())["finished"]


def test_a_program_without_a_terminal_ends_alike():
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        assert subprocess.run(f"{sys.executable} budget.py --flops 1e12 {closed}", shell=True, cwd=ROOT, stderr=subprocess.DEVNULL, timeout=60).returncode == 0


def test_nohup_is_heeded_and_a_closed_terminal_stops(tmp_path):
    program = "import cli, os, signal, sys\ndef main():\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('went on')\ncli.program(main)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 129 and done.stdout == ""
    done = subprocess.run([sys.executable, "-c", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "went on\n"


@pytest.mark.parametrize("typed, meant", [("--flop", "--flops"), ("--modle", "--model"), ("--flpos=1e11", "--flops")])
def test_a_mistyped_option_is_named_and_not_what_is_missing(typed, meant):
    parser = cli.Parser(prog="x")
    parser.add_argument("--flops", required=True)
    parser.add_argument("--model")
    with pytest.raises(UserError, match=f"there is no option {typed.split('=')[0]}: did you mean {meant}"):
        parser.parse_args([typed, "1"])
    assert parser.parse_args(["--flops=1", "--model", "--x y"]).model == "--x y"  # a value with a space is none


def test_a_signal_that_a_destructor_swallows_comes_again():
    program = """
import cli, os, signal, time
class Thing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
def main():
    Thing()
    time.sleep(20)
cli.program(main)"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=15)
    assert done.returncode == 143 and done.stderr == ""
