"""cli.py: numbers are read exactly, a user's mistake ends in one line on stderr and exit status 2,
and a signal ends a program with the shell's status."""
import errno
import json
import os
import signal
import subprocess
import sys
import time

from plumbing import cli
from plumbing.cli import UserError

import pytest
from conftest import ROOT

# --------------------------------------------------------------------------------------------------
# Numbers


@pytest.mark.parametrize("text, value", [
    ("1e13", 10 ** 13), ("2.5e15", 2_500_000_000_000_000), ("5000", 5000), ("1", 1),
    ("1e30", 10 ** 30), (" 7 ", 7), ("1_000_000", 1_000_000), ("1E3", 1000),
    ("1e23", 10 ** 23),                                       # as a float 99999999999999991611392
    ("123456789012345678901", 123_456_789_012_345_678_901)])  # as a float it ends in 683968
def test_a_number_is_exact(text, value):
    assert cli.number(text) == value and type(cli.number(text)) is int


@pytest.mark.parametrize("text", [
    "", "many", "1e", "e5", "0", "-1", "-1e15", "0.5", "1.1e30", "1e31", "1e999999999", "nan",
    "sNaN", "inf", "-inf", "1,000", "0x10", "1e13 FLOPs", "1e99999999999999999999"])
def test_a_text_that_is_not_a_number_from_1_to_1e30_is_refused(text):
    with pytest.raises(UserError):
        cli.number(text)


@pytest.mark.parametrize("text, value", [
    ("3", 3), ("1e3", 1000), ("1000.0", 1000), (" 12 ", 12), ("2", 2), ("+5", 5)])
def test_a_whole_number_may_have_an_exponent(text, value):
    parsed = cli.whole(2, 1000)(text)
    assert parsed == value and type(parsed) is int


@pytest.mark.parametrize("text", [
    "", "two", "1", "1001", "-3", "2.5", "1e4", "1e-1", "nan", "sNaN", "inf", "3 4"])
def test_a_number_that_is_not_whole_or_out_of_range_is_refused_with_the_range(text):
    with pytest.raises(UserError, match="from 2 to 1,000"):
        cli.whole(2, 1000)(text)


def test_a_whole_number_of_100_million_digits_is_refused_at_once(python):
    # It must be compared with the range while it is a Decimal. As an int it takes minutes to write
    # out, and Python cannot interrupt that. So the kernel limits a process to two seconds of CPU
    # time.
    done = python("-c", """
import resource
from plumbing import cli
resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
try:
    cli.whole(2, 1000)("1e99999999")
except cli.UserError:
    print("refused")
""")
    assert (done.returncode, done.stdout) == (0, "refused\n")


@pytest.mark.parametrize("text, value", [
    ("0.15", 0.15), ("0", 0.0), ("1", 1.0), ("1e-4", 0.0001), (" 0.5 ", 0.5)])
def test_a_real_number_is_read(text, value):
    assert cli.real(0, 1)(text) == value


@pytest.mark.parametrize("text", ["", "half", "-0.1", "1.0001", "nan", "inf", "-inf", "0,5"])
def test_a_real_number_out_of_range_is_refused_with_the_range(text):
    with pytest.raises(UserError, match="from 0 to 1$"):
        cli.real(0, 1)(text)


def test_an_exception_of_many_lines_is_printed_as_one():
    assert cli.one_line(ValueError("first\n   second\tthird")) == "first second third"
    assert len(cli.one_line(ValueError("word " * 1000))) == 200


# --------------------------------------------------------------------------------------------------
# The parser


def demo_parser():
    parser = cli.Parser(prog="demo.py")
    parser.add_argument("--count", type=cli.whole(1, 10))
    parser.add_argument("--kind", choices=["red", "blue"])
    return parser


@pytest.mark.parametrize("arguments, named", [
    (["--count", "11"], "--count"), (["--kind", "green"], "--kind"), (["--size", "3"], "--size"),
    (["--count"], "--count"), (["surplus"], "surplus"), (["--coun", "3"], "--coun")])
def test_a_bad_option_is_named_and_the_error_points_to_the_help(arguments, named):
    with pytest.raises(UserError) as refusal:
        demo_parser().parse_args(arguments)
    assert named in str(refusal.value) and "demo.py --help" in str(refusal.value)


def test_good_options_are_taken():
    args = demo_parser().parse_args(["--count", "1e1", "--kind", "blue"])
    assert (args.count, args.kind) == (10, "blue")


@pytest.mark.parametrize("typed, meant", [
    ("--flop", "--flops"), ("--modle", "--model"), ("--flpos=1e11", "--flops")])
def test_a_mistyped_option_is_named_and_not_the_required_one_that_is_missing(typed, meant):
    parser = cli.Parser(prog="x")
    parser.add_argument("--flops", required=True)
    parser.add_argument("--model")
    message = f"there is no option {typed.split('=')[0]}: did you mean {meant}"
    with pytest.raises(UserError, match=message):
        parser.parse_args([typed, "1"])


def test_a_value_that_begins_with_two_dashes_and_has_a_space_is_not_an_option():
    parser = cli.Parser(prog="x")
    parser.add_argument("--more")
    assert parser.parse_args(["--more", "--x y"]).more == "--x y"


def test_help_goes_to_stdout_with_status_0(python):
    done = python("-c", "from plumbing import cli\n"
                  "cli.program(cli.Parser(description='What it does.').parse_args)", "--help")
    assert done.returncode == 0 and "What it does." in done.stdout and done.stderr == ""


# --------------------------------------------------------------------------------------------------
# Signals in a training loop


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_inside_signals_a_signal_only_sets_stopped(signum):
    before = signal.getsignal(signum)
    with cli.Signals() as signals:
        assert signals.stopped is None
        signal.raise_signal(signum)
        assert isinstance(signals.stopped, cli.Stopped)
        assert signals.stopped.status == 128 + signum
    assert signal.getsignal(signum) is before


def test_inside_signals_a_second_signal_changes_nothing():
    with cli.Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        first = signals.stopped
        signal.raise_signal(signal.SIGINT)
        assert signals.stopped is first


# --------------------------------------------------------------------------------------------------
# How a program ends. Each of these is a whole program, run in a process of its own.


def program(body, before=""):
    """The text of a program whose main() does what `body`, some lines of Python, says."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return (f"import errno, os, signal, time\nfrom plumbing import cli\n{before}\n"
            f"def main():\n{lines}\ncli.program(main)")


def kill(signum):
    """The line of a program that sends itself a signal."""
    return f"os.kill(os.getpid(), {int(signum)})"


def test_a_program_that_ends_well_has_status_0(python):
    done = python("-c", program("print('done')"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_users_mistake_is_one_line_on_stderr_and_status_2(python):
    done = python("-c", program(r"raise cli.UserError('the text\n  is empty: give another')"))
    expected = "error: the text is empty: give another\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.parametrize("failure", [
    "MemoryError", "RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')",
    "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')"])
def test_running_out_of_memory_says_what_to_lower(python, failure):
    done = python("-c", program(f"raise {failure}"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: out of memory") and "--batch-size" in done.stderr


def test_a_full_disk_says_that_the_same_command_goes_on(python):
    done = python("-c", program(
        "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'some/file')"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "some/file" in done.stderr
    assert "run the same command again" in done.stderr


def test_a_name_that_a_library_cannot_open_is_one_line(python):
    done = python("-c", program(r"'caf\udce9.txt'.encode()"))  # as libraries do with a name
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and r"rename it (caf\udce9.txt)" in done.stderr


def test_other_text_that_cannot_be_encoded_is_a_defect(python):
    done = python("-c", program(r"'\u00e9'.encode('ascii')"))
    assert done.returncode == 1 and "UnicodeEncodeError" in done.stderr


def test_any_character_is_printed_whatever_the_streams_encoding(python):
    body = r"""
cli.say('caf\udce9 caf\u00e9')
raise cli.UserError('caf\udce9 caf\u00e9')"""
    done = python("-c", program(body), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == "caf\\udce9 caf\\xe9\n"
    assert (done.returncode, done.stderr) == (2, "error: caf\\udce9 caf\\xe9\n")


def test_libraries_keep_quiet_in_a_log(python):
    # No bars as endless lines, no logged failure before the program's own line.
    done = python("-c", program("""
import logging
print([os.environ[name] for name in ("HF_HUB_DISABLE_PROGRESS_BARS",
      "HF_DATASETS_DISABLE_PROGRESS_BARS", "DATASETS_VERBOSITY")])
logging.getLogger("matplotlib.font_manager").warning("no folder for settings")"""))
    assert done.stdout == "['1', '1', 'critical']\n" and done.stderr == ""


def test_a_missing_file_is_named(python):
    done = python("-c", program("open('no/such/file')"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and "no/such/file" in done.stderr


@pytest.mark.parametrize("defect, name", [
    ("1 / 0", "ZeroDivisionError"), ("raise RuntimeError('shapes differ')", "RuntimeError")])
def test_a_defect_of_the_program_keeps_its_traceback(python, defect, name):
    done = python("-c", program(defect))
    assert done.returncode == 1 and "Traceback" in done.stderr and name in done.stderr


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_program_with_the_shells_status(python, signum, status):
    done = python("-c", program(f"{kill(signum)}; signal.pause()"))
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("signum, at_start, status, printed", [
    (signal.SIGHUP, "SIG_DFL", 129, ""),             # the terminal is closed
    (signal.SIGHUP, "SIG_IGN", 0, "it went on\n"),   # `nohup` starts a program so
    (signal.SIGINT, "SIG_DFL", 130, ""),             # Ctrl-C
    (signal.SIGINT, "SIG_IGN", 0, "it went on\n")])  # a script starts a program with `&` so
def test_a_signal_stops_a_program_that_was_not_started_to_ignore_it(python, signum, at_start,
                                                                    status, printed):
    # A process inherits whether a signal is ignored, so each program sets it itself: the tests may
    # run under nohup, too.
    before = f"signal.signal(signal.{signum.name}, signal.{at_start})"
    done = python("-c", program(f"{kill(signum)}\nprint('it went on')", before))
    assert (done.returncode, done.stdout) == (status, printed)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_except_exception_does_not_swallow_a_signal(python, signum):
    done = python("-c", program(f"""
try:
    {kill(signum)}; signal.pause()
except Exception:
    print('swallowed')"""))
    assert (done.returncode, done.stdout) == (128 + signum, "")


@pytest.mark.parametrize("body", [
    # A second signal comes while the first is obeyed.
    "try:\n    {term}; signal.pause()\nfinally:\n    {interrupt}",
    # Two signals come at once.
    "{term}; {interrupt}",
    # A library turns the first into another exception, as an interrupted import may.
    "try:\n    {term}; signal.pause()\nexcept BaseException:\n    raise ImportError"])
def test_the_first_signal_decides_the_status_whatever_follows(python, body):
    body = body.format(term=kill(signal.SIGTERM), interrupt=kill(signal.SIGINT))
    done = python("-c", program(body))
    assert (done.returncode, done.stderr) == (143, "")


def test_after_a_stop_in_a_loop_a_second_signal_does_not_disturb_the_end(python):
    done = python("-c", program(f"""
with cli.Signals() as signals:
    {kill(signal.SIGTERM)}
{kill(signal.SIGINT)}
raise signals.stopped"""))
    assert (done.returncode, done.stderr) == (143, "")


def test_a_signal_that_a_library_swallowed_can_be_repeated(python):
    done = python("-c", program(f"""
try:
    {kill(signal.SIGTERM)}; signal.pause()
except BaseException:
    time.sleep(2.1)
{kill(signal.SIGTERM)}; signal.pause()"""))
    assert (done.returncode, done.stderr) == (143, "")


SLOW_THREADS = """
import threading
real_start = threading.Thread.start
def slow_start(thread):
    real_start(thread)
    time.sleep(0.2)
threading.Thread.start = slow_start"""


@pytest.mark.parametrize("machine", ["", SLOW_THREADS])  # a busy machine starts a thread slowly
def test_a_signal_that_a_destructor_swallows_is_sent_again(python, machine):
    began = time.monotonic()
    done = python("-c", program("""
Thing()
time.sleep(100)""", before=f"""{machine}
class Thing:
    def __del__(self):
        {kill(signal.SIGTERM)}
        time.sleep(0)"""))
    assert (done.returncode, done.stderr) == (143, "")
    assert time.monotonic() - began < 90


# --------------------------------------------------------------------------------------------------
# The output streams


@pytest.mark.parametrize("length", [1, 10 ** 6])  # fits into the buffer until the end, or does not
def test_a_reader_that_has_read_enough_is_no_error(python, length):
    reader, writer = os.pipe()
    os.close(reader)  # as in `program | head`, once head has its lines
    try:
        done = python("-c", program(f"print('x' * {length})"), stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")  # 128 + SIGPIPE, as for any program


def test_a_program_goes_on_when_the_reader_of_both_streams_has_gone(python, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    body = f"""
for _ in range(2):
    cli.say("a line of the log")
    print("a progress bar", file=sys.stderr, flush=True)
open({str(tmp_path / 'result')!r}, "w").close()"""
    try:
        done = python("-c", program(body, "import sys"), stdout=writer, stderr=writer)
    finally:
        os.close(writer)
    assert done.returncode == 0 and (tmp_path / "result").exists()


@pytest.mark.slow
def test_a_run_goes_on_when_the_reader_of_both_streams_has_gone(tmp_path):
    # The progress bar's lines on stderr fail, too.
    line = (f"{sys.executable} train.py --flops 3e9 --model 1x64 --seq-len 16 --batch-size 8 "
            f"--out {tmp_path / 'run'} 2>&1 | head -n 1")
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_program_runs_with_closed_streams(closed):
    line = f"{sys.executable} budget.py --flops 1e12 {closed}"
    done = subprocess.run(line, shell=True, cwd=ROOT, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0


def test_say_does_not_hide_a_full_disk():
    def fail(words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        cli.say("words", fail)
