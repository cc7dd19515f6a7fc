"""cli.py: numbers are read exactly, a user's mistake ends in one line on stderr and exit status 2,
and a signal ends a program with the shell's status."""
import os
import signal

from program import cli
from program.cli import UserError

import pytest


@pytest.mark.parametrize("text, value", [
    ("1e13", 10 ** 13), ("2.5e15", 2_500_000_000_000_000), ("5000", 5000), (" 7 ", 7),
    ("1_000_000", 1_000_000), ("1000.0", 1000),
    ("1e23", 10 ** 23),                                       # as a float 99999999999999991611392
    ("123456789012345678901", 123_456_789_012_345_678_901)])  # as a float it ends in 683968
def test_a_number_is_exact(text, value):
    assert cli.number(text) == value and type(cli.number(text)) is int


@pytest.mark.parametrize("parse, texts, message", [
    (cli.number, ["", "many", "1e", "0", "-1", "0.5", "1.1e30", "nan", "inf", "1,000", "0x10",
                  "1e13 FLOPs", "1e999999999"], "a whole number from 1 to 1e30, like 5e3"),
    (cli.whole(2, 1000), ["1", "1001"], "from 2 to 1,000"),
    (cli.real(0, 1), ["", "half", "-0.1", "1.0001", "nan"], "from 0 to 1$")])
def test_a_text_that_is_no_number_in_the_range_is_refused_with_the_range(parse, texts, message):
    for text in texts:
        with pytest.raises(UserError, match=message):
            parse(text)
    assert (cli.whole(2, 1000)("1e3"), cli.real(0, 1)("1e-4")) == (1000, 0.0001)


@pytest.mark.parametrize("seconds, words", [
    (0.04, "0.0 s"), (4.21, "4.2 s"), (9.97, "10 s"), (59.4, "59 s"), (59.7, "1 min 0 s"),
    (185, "3 min 5 s"), (3599.4, "59 min 59 s"), (3599.7, "1 h 0 min"), (26430, "7 h 20 min"),
    (172799, "2 days 0 h"), (12.1 * 86400, "12 days 2 h"), (6e10, "1,901 years")])
def test_a_duration_is_told_in_its_two_largest_units(seconds, words):
    assert cli.duration(seconds) == words


@pytest.mark.parametrize("words, named", [
    ("--count 11", "--count"), ("surplus --flops 1", "surplus"), ("", "--flops"),
    # A mistyped option is told before the required one that is missing.
    ("--size 3", "no option --size"), ("--coun 3", "--coun: did you mean --count")])
def test_a_bad_option_is_one_error_line_that_names_it_and_the_help(python, words, named):
    done = python("-c", f"""
from program import cli
parser = cli.Parser(prog="demo.py", epilog="examples:\\n  demo.py --flops 1e13\\n  demo.py")
parser.add_argument("--count", type=cli.whole(1, 10))
parser.add_argument("--flops", required=True)
cli.program(lambda: parser.parse_args({words.split()}))""")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and named in done.stderr
    assert "demo.py --help" in done.stderr


def test_a_value_may_begin_with_two_dashes_where_it_has_a_space_or_its_option_is_verbatim():
    parser = cli.Parser(["--more"], prog="x")
    parser.add_argument("--more")
    parser.add_argument("--other")
    args = parser.parse_args(["--more", "--paper", "--other", "--x y"])
    assert (args.more, args.other) == ("--paper", "--x y")


# --------------------------------------------------------------------------------------------------
# How a program ends. Each of these is a whole program, run in a process of its own.


def program(body, before=""):
    """The text of a program whose main() does what `body`, some lines of Python, says."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return (f"import errno, os, signal, sys, time\nfrom program import cli\n{before}\n"
            f"def main():\n{lines}\ncli.program(main)")


@pytest.mark.parametrize("body, error", [
    (r"raise cli.UserError('the text\n  is empty: give another')",
     "the text is empty: give another"),
    ("raise MemoryError", "out of memory: lower --micro-batch"),
    ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "out of memory: lower"),
    ("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'some/file')",
     "No space left on device: some/file; make room and run the same command again"),
    ("open('no/such/file')", "No such file or directory: no/such/file"),
    # As libraries do with a name that is not UTF-8, and how it is printed.
    (r"'caf\udce9.txt'.encode()", r"rename it (caf\udce9.txt)"),
    (r"raise cli.UserError('caf\udce9 caf\u00e9')", r"caf\udce9 caf\xe9")])
def test_what_the_user_can_mend_is_one_error_line_and_status_2(python, body, error):
    done = python("-c", program(body), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and error in done.stderr


def test_a_defect_of_the_program_keeps_its_traceback(python):
    done = python("-c", program("raise RuntimeError('shapes differ')"))
    assert done.returncode == 1 and "Traceback" in done.stderr and "RuntimeError" in done.stderr


def test_any_character_is_printed_and_libraries_keep_quiet_in_a_log(python):
    done = python("-c", program(r"""
import logging
cli.say('caf\udce9 caf\u00e9')
print([os.environ[name] for name in ("HF_HUB_DISABLE_PROGRESS_BARS",
      "HF_DATASETS_DISABLE_PROGRESS_BARS", "DATASETS_VERBOSITY")])
logging.getLogger("matplotlib.font_manager").warning("no folder for settings")"""),
                  env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == "caf\\udce9 caf\\xe9\n['1', '1', 'critical']\n"
    assert (done.returncode, done.stderr) == (0, "")


# --------------------------------------------------------------------------------------------------
# Signals

INTERRUPT, TERM = (f"os.kill(os.getpid(), {int(s)})" for s in (signal.SIGINT, signal.SIGTERM))


@pytest.mark.parametrize("body, status", [
    (f"try:\n    {INTERRUPT}; signal.pause()\nexcept Exception:\n    print('swallowed')", 130),
    # The first signal decides, whatever follows. A second one comes while the first is obeyed.
    (f"try:\n    {TERM}; signal.pause()\nfinally:\n    {INTERRUPT}", 143),
    # A library turns the first into another exception, as an interrupted import may.
    (f"try:\n    {TERM}; signal.pause()\nexcept BaseException:\n    raise ImportError", 143),
    # A loop has saved, and a second one comes before the end.
    (f"with cli.Signals() as signals:\n    {TERM}\n{INTERRUPT}\nraise signals.stopped", 143),
    # A library swallows the first, and the user repeats it.
    (f"try:\n    {TERM}; signal.pause()\nexcept BaseException:\n    time.sleep(2.1)\n{TERM}\n"
     "signal.pause()", 143)])
def test_a_signal_ends_a_program_with_the_shells_status(python, body, status):
    done = python("-c", program(body))
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("signum, at_start, status, printed", [
    (signal.SIGHUP, "SIG_DFL", 129, ""),             # the terminal is closed
    (signal.SIGHUP, "SIG_IGN", 0, "it went on\n"),   # `nohup` starts a program so
    (signal.SIGINT, "SIG_IGN", 0, "it went on\n")])  # a script starts a program with `&` so
def test_a_signal_stops_a_program_that_was_not_started_to_ignore_it(python, signum, at_start,
                                                                    status, printed):
    before = f"signal.signal(signal.{signum.name}, signal.{at_start})"
    body = f"os.kill(os.getpid(), {int(signum)})\nprint('it went on')"
    done = python("-c", program(body, before))
    assert (done.returncode, done.stdout) == (status, printed)


def test_inside_signals_the_first_signal_only_sets_stopped(monkeypatch):
    monkeypatch.setattr(cli, "stops", [])
    before = signal.getsignal(signal.SIGTERM)
    with cli.Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        first = signals.stopped
        signal.raise_signal(signal.SIGTERM)
        assert signals.stopped is first and first.status == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("body, status", [
    ("print('x')", 141), ("print('x' * 10 ** 6)", 141),  # 128 + SIGPIPE, as for any program
    ("cli.say('a line of the log')\ncli.say('another')", 0)])  # a run of many hours goes on
def test_a_reader_that_has_read_enough_is_no_error(python, body, status):
    reader, writer = os.pipe()
    os.close(reader)  # as in `program | head`, once head has its lines
    try:
        done = python("-c", program(body), stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("module", ["budget", "train", "glue", "compare"])
def test_importing_a_concept_sets_one_variable_before_torch_reads_it(python, module):
    variables = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    done = python("-c", f"""
import os, signal, sys
class Torch:  # on the way to torch, where it is imported
    def find_spec(name, *_):
        if name == "torch" and "GOMP_SPINCOUNT" not in os.environ:
            print("torch comes first")
sys.meta_path.insert(0, Torch)
before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
import {module}
assert signal.getsignal(signal.SIGTERM) is handler
print({{key: value for key, value in os.environ.items() if before.get(key) != value}})
""", env=variables)
    assert done.stdout == "{'GOMP_SPINCOUNT': '3000'}\n", done.stderr
