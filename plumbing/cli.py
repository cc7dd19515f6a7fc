"""The command line: how numbers are written, how a user's mistake ends, how a signal stops a program.

Every program of this project ends in `cli.program(main)`: what the user can mend is one line on stderr, `error: what is
wrong, and what to do`, and exit status 2. Standard library only.
"""
import argparse
import difflib
import errno
import os
import signal
import sys
import threading
import time
from decimal import Decimal, InvalidOperation


class UserError(argparse.ArgumentTypeError):
    """A mistake that the user can mend. (An ArgumentTypeError, so that argparse says which option it was about.)"""


def number(text):
    """`"2.5e15"` -> 2500000000000000, without a float's rounding; a fraction is cut off. Raises UserError unless the text is a
    finite number of at least 1."""
    try:
        value = Decimal(str(text).strip().replace("_", ""))
    except InvalidOperation:
        raise UserError(f"{text!r} is no number: write it like 1e13, 2.5e15 or 5000") from None
    if not value.is_finite() or not 1 <= value <= Decimal("1e30"):
        raise UserError(f"{text} is out of range: write a number from 1 to 1e30, like 1e13")
    return int(value)


def whole(least, most):
    """An argparse type: whole numbers from `least` to `most`, also as 1e6."""
    def parse(text):
        try:
            value = Decimal(text.strip())
            if least <= value <= most and value == int(value):  # in this order: 1e99999999 has a hundred million digits
                return int(value)
        except (InvalidOperation, OverflowError, ValueError):
            pass
        raise UserError(f"{text!r} should be a whole number from {least:,} to {most:,}")
    return parse


def real(least, most):
    """An argparse type: numbers from `least` to `most`."""
    def parse(text):
        try:
            value = float(text)
            if least <= value <= most:
                return value
        except ValueError:
            pass
        raise UserError(f"{text!r} should be a number from {least:g} to {most:g}")
    return parse


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line, like all other errors."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def parse_args(self, argv=None, namespace=None):
        for word in sys.argv[1:] if argv is None else argv:
            flag = str(word).split("=")[0]
            if flag.startswith("--") and flag != "--" and " " not in flag and flag not in self._option_string_actions:  # argparse would first name what is missing
                near = difflib.get_close_matches(flag, self._option_string_actions, 1, 0.7)
                self.error(f"there is no option {flag}" + (f": did you mean {near[0]}?" if near else ""))
        return super().parse_args(argv, namespace)

    def error(self, message):
        if self.epilog:
            print(self.epilog, file=sys.stderr)
        raise UserError(f"{message} (python {self.prog} --help lists the options)")


SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP  # the last: the terminal was closed


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP. Not an Exception: no `except Exception` on the way may swallow it."""

    def __init__(self, signum):
        self.status = 128 + signum  # the shell's convention: 130, 143 and 129


def stopping_signals():
    """The signals that stop a program: not a SIGHUP that `nohup` has it ignore."""
    return [signum for signum in SIGNALS if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN]


def program(main):
    """Runs a program's main(), and turns what the user can mend into one line on stderr and exit status 2."""
    stopped = []  # (signal, when)

    def stop(signum, frame):
        bounced = stopped and time.monotonic() - stopped[-1][1] < 2  # a second one a moment later changes nothing
        if not bounced:
            stopped.append((Stopped(signum), time.monotonic()))
            raise stopped[0][0]
    def swallowed(failure, usual=sys.unraisablehook):
        """What is raised inside a `__del__` goes no further: the signal is sent again."""
        if not isinstance(failure.exc_value, Stopped):
            return usual(failure)
        stopped.clear()
        threading.Timer(0.01, os.kill, (os.getpid(), failure.exc_value.status - 128)).start()
    sys.unraisablehook = swallowed
    for signum in stopping_signals():
        signal.signal(signum, stop)
    repair_streams()
    try:
        status = exit_status(main)
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)  # too late to stop anything
    except Stopped as end:
        status = end.status
    except BaseException:  # what a library made of it: an import that is interrupted may end in an ImportError
        if not stopped:
            raise
    sys.exit(stopped[0][0].status if stopped else status)


def exit_status(main):
    """The exit status of main(), after the line that says why."""
    try:
        main()
        sys.stdout.flush()
        return 0
    except UserError as mistake:
        return complain(" ".join(str(mistake).split()))
    except BrokenPipeError:  # `... | head` has read enough
        discard(sys.stdout)
        return 141  # 128 + SIGPIPE: what was asked for is not done
    except OSError as failure:
        if failure.errno is None:
            raise
        advice = {errno.ENOSPC: "; make room and run the same command again, nothing written earlier is lost",
                  errno.EDQUOT: "; make room and run the same command again, nothing written earlier is lost",
                  errno.EACCES: "; choose a place that you may write to and read from",
                  errno.EROFS: "; choose a place that you may write to"}.get(failure.errno, "")
        return complain(f"{failure.strerror}{f': {failure.filename}' if failure.filename else ''}{advice}")
    except (MemoryError, RuntimeError) as failure:  # torch says it in a RuntimeError's text
        if not isinstance(failure, MemoryError) and not any(
                words in str(failure) for words in ("out of memory", "can't allocate memory", "not enough memory")):
            raise
        return complain("out of memory: lower --micro-batch (without --dropout the result stays the same), --batch-size, --seq-len or --model")


class Patient:
    """stderr for a program that goes on where nobody reads it any more: `... 2>&1 | head`, a terminal that was closed."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        try:
            return self.stream.write(text)
        except OSError:
            discard(self.stream)

    def flush(self):
        try:
            self.stream.flush()
        except OSError:
            discard(self.stream)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def repair_streams():
    """stdout and stderr as a program wants them: there (a daemon may have closed them), and able to spell any name."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Patient(stream) if name == "stderr" and not isinstance(stream, Patient) else stream)


def say(words, write=print):
    """Prints, and goes on where nobody reads any more: `... | head` does not stop a run."""
    try:
        write(words)
        sys.stdout.flush()
    except OSError as failure:
        if failure.errno not in (errno.EPIPE, errno.EIO):
            raise
        discard(sys.stdout)


def discard(stream):
    """For when the reader of a stream has gone: what is printed from here on goes nowhere, and fails no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def complain(message):
    print(f"error: {message}", file=sys.stderr)
    return 2


class Signals:
    """`with Signals() as signals:` inside it SIGINT, SIGTERM and SIGHUP only set `signals.stopped`, for a loop to see between two
    steps; a second one while the state is being saved changes nothing."""

    def __enter__(self):
        self.stopped = None
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.before = {signum: signal.signal(signum, self.note) for signum in stopping_signals()}
        else:
            self.before = {}
        return self

    def note(self, signum, frame):
        self.stopped = self.stopped or Stopped(signum)

    def __exit__(self, *_):
        for signum, handler in self.before.items():
            signal.signal(signum, handler)


def flops(n):
    """6981000000 -> '6.98e9': three significant digits."""
    return f"{n:.0f}" if n < 1e4 else f"{n:.2e}".replace("e+0", "e").replace("e+", "e")


def duration(seconds):
    """Seconds in words: '4.2 s', '42 s', '3 min 5 s', '7 h 20 min', '12 days 3 h', '1,900 years'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    units = (("min", 60, 60 * 60), ("h", 3600, 48 * 3600), ("days", 86400, 2 * 31557600))
    for (unit, length, below), (small, small_length) in zip(units, (("s", 1), ("min", 60), ("h", 3600))):
        if seconds < below:
            return f"{int(seconds // length):,} {unit} {int(seconds % length // small_length)} {small}"
    return f"{seconds / 31557600:,.0f} years"


def one_line(failure):
    return " ".join(str(failure).split())[:200]
