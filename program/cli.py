"""The command line: numbers, options, errors, signals and the two output streams.

Every program of this project ends in `cli.program(main)`. It turns a mistake that the user can mend
into one line on stderr, `error: what is wrong, and what to do`, and exit status 2.
"""
import argparse
import contextlib
import difflib
import errno
import functools
import logging
import os
import re
import signal
import sys
import time
from decimal import Decimal, InvalidOperation


class UserError(argparse.ArgumentTypeError):
    """A mistake that the user can mend. As an ArgumentTypeError it names the option."""


def whole(least, most):
    """An argparse type for whole numbers, which are read exactly: "2.5e15" -> 2500000000000000."""
    def parse(text):
        with contextlib.suppress(InvalidOperation):
            value = Decimal(str(text).strip().replace("_", ""))
            # The range is checked first: as an int, 1e99999999 has a hundred million digits.
            if least <= value <= most and value == int(value):
                return int(value)
        end = f"{most:,}" if most < 10 ** 12 else f"{most:.0e}".replace("+", "")
        raise UserError(f"{text!r} should be a whole number from {least:,} to {end}, like 5e3")
    return parse


number = whole(1, 10 ** 30)


def real(least, most):
    """An argparse type for real numbers from `least` to `most`."""
    def parse(text):
        with contextlib.suppress(ValueError):
            value = float(text)
            if least <= value <= most:
                return value
        raise UserError(f"{text!r} should be a number from {least:g} to {most:g}")
    return parse


def counted(n, noun):
    """'1 seed', '12 seeds'."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def flops(n):
    """6981000000 -> '6.98e9': a number of FLOPs with three significant digits."""
    if n < 1e4:
        return f"{n:.0f}"
    return f"{n:.2e}".replace("e+0", "e").replace("e+", "e")


def duration(seconds):
    """Seconds in words: 4.2 s, 42 s, 3 min 5 s, 7 h 20 min, 12 days 3 h or 1,900 years."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    # Each is rounded before it is compared: 59 min 59.7 s are 1 h.
    seconds, minutes, hours = (round(seconds / unit) for unit in (1, 60, 3600))
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60} min"
    if hours < 17532:  # two years
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours / 8766:,.0f} years"


def one_line(failure):
    """The text of an exception as one line of at most 200 characters."""
    return " ".join(str(failure).split())[:200]


def say(words, write=print):
    """Prints words. A program goes on where nobody reads them any more, as after `... | head`."""
    try:
        write(words)
        sys.stdout.flush()
    except OSError as failure:
        if failure.errno not in (errno.EPIPE, errno.EIO):
            raise
        sys.stdout = open(os.devnull, "w")


@functools.cache
def say_once(words):
    """Prints words the first time only: a program may open the same model several times."""
    say(words)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises UserError. Options cannot be abbreviated. verbatim: options
    whose value is a text of other options, which may begin with --."""

    def __init__(self, verbatim=(), **options):
        self.verbatim = verbatim
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                         **options)

    def parse_args(self, argv=None, namespace=None):
        words = list(sys.argv[1:] if argv is None else argv)
        for i in reversed(range(len(words) - 1)):
            if words[i] in self.verbatim:  # argparse would take its value `--paper` for an option
                words[i:i + 2] = [f"{words[i]}={words[i + 1]}"]
        self.check_flags(words)
        return super().parse_args(words, namespace)

    def check_flags(self, words):
        """Raises UserError where a flag is unknown, and names the one that is most like it."""
        known = self._option_string_actions
        for flag in (str(word).split("=")[0] for word in words):
            if re.fullmatch("--[^ ]+", flag) and flag not in known:
                similar = difflib.get_close_matches(flag, known, 1, 0.7)
                hint = f": did you mean {similar[0]}?" if similar else ""
                self.error(f"there is no option {flag}{hint}")

    def error(self, message):
        """What argparse calls for every mistake on the command line."""
        raise UserError(f"{message} (python {self.prog} --help lists the options)")


# --------------------------------------------------------------------------------------------------
# Signals

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP  # SIGHUP: the terminal was closed


class Stopped(BaseException):
    """A signal has asked the program to stop. No `except Exception` swallows it."""

    def __init__(self, signum):
        self.status = 128 + signum  # the shell's convention: 130, 143 and 129
        self.time = time.monotonic()


stops = []  # each Stopped of this program; the first decides its exit status


def stop_at_once(signum, frame):
    """The signal handler of a program. A second signal must not disturb a program that obeys the
    first. After two seconds a library has probably swallowed that."""
    if not stops or time.monotonic() - stops[-1].time > 2:
        stops.append(Stopped(signum))
        raise stops[0]


def stopping_signals():
    """The signals that stop this program: none that `nohup` or `&` in a script lets it ignore."""
    return [signum for signum in SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]


class Signals:
    """Postpones the stop: inside `with Signals() as signals:` a signal only sets `signals.stopped`,
    which a loop reads between two steps. Later signals change nothing."""

    def __enter__(self):
        self.stopped = None
        self.handlers = {signum: signal.signal(signum, self.handle)
                         for signum in stopping_signals()}
        return self

    def handle(self, signum, frame):
        self.stopped = self.stopped or Stopped(signum)

    def __exit__(self, *_):
        if self.stopped:
            self.stopped.time = time.monotonic()  # from now on it is obeyed
            stops.append(self.stopped)
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)


def program(main):
    """Runs main() and exits: with exit_status(main), or, after a signal, with 128 + its number."""
    stops.clear()
    for signum in stopping_signals():
        signal.signal(signum, stop_at_once)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # any character can be printed
    # Libraries, which are imported later, log no failed attempts, and draw no bars in a log.
    for name in ("DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "critical")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    try:
        status = exit_status(main)
    except Stopped as stopped:
        status = stopped.status
    except BaseException:  # a library may turn Stopped into another, as an import into ImportError
        if not stops:
            raise
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # the work is done: nothing is left to stop
    sys.exit(stops[0].status if stops else status)


def exit_status(main):
    """Calls main() and returns the exit status: 0, or 2 after an error line, or 141 where the
    reader of stdout has gone. Other failures are defects."""
    try:
        main()
        sys.stdout.flush()
        return 0
    except UserError as mistake:
        message = " ".join(str(mistake).split())
    except BrokenPipeError:  # `... | head` has read enough, and what was asked for is not done
        sys.stdout = open(os.devnull, "w")
        return 128 + signal.SIGPIPE
    except OSError as failure:
        if failure.errno is None:
            raise
        message = system_error(failure)
    except UnicodeEncodeError as failure:
        message = f"a name is not UTF-8: rename it ({one_line(failure.object[-200:])})"
    except (MemoryError, RuntimeError) as failure:
        if not is_out_of_memory(failure):
            raise
        message = "out of memory: lower --micro-batch, --batch-size, --seq-len or --model"
    print(f"error: {message}", file=sys.stderr)
    return 2


def is_out_of_memory(failure):
    """Whether memory ran out. torch's error for it has no class of its own."""
    texts = "out of memory", "can't allocate memory", "not enough memory"
    return isinstance(failure, MemoryError) or any(text in str(failure) for text in texts)


def system_error(failure):
    """What the system says of an OSError: the reason, the file's name, and what to do about it."""
    name = f": {failure.filename}" if failure.filename else ""
    is_full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{failure.strerror}{name}{'; make room and run the same command again' * is_full}"


TORCHRUN = re.compile("((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|"
                      "TORCHELASTIC_.*)")


def environment_of_one(**others):
    """The environment for a program that this one starts, with some other variables, and without
    those of torchrun, with which the program would wait for other processes."""
    kept = {name: value for name, value in os.environ.items() if not TORCHRUN.fullmatch(name)}
    return {**kept, **others}
