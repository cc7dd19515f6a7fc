"""What the root's programs do before they import torch, which takes two seconds.

train.py, glue.py and compare.py import this file before torch. Where one of them is the program
that runs, two things happen here:

 1. From now on a signal ends the program quietly. During the imports nothing has been written yet,
    so there is nothing to save. `cli.program` replaces these handlers when the imports are done.
 2. The command line is read for the first time, so that --help and mistyped options are answered
    at once.

Where a root file is merely imported, as in the tests, nothing happens.
"""
import os
import signal
import sys

from plumbing import cli

PROGRAMS = ("train.py", "glue.py", "compare.py")


def running_program():
    """The name of the root's program that runs, like "train.py", or None."""
    main_file = getattr(sys.modules["__main__"], "__file__", None)
    if main_file is None:
        return None
    folder, name = os.path.split(os.path.realpath(main_file))
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    return name if folder == root and name in PROGRAMS else None


def end_at_once(signum, frame):
    """Ends the process without a traceback, with the shell's exit status for the signal."""
    os._exit(128 + signum)


def check_command_line(program):
    """Reads the command line of `program`. Exits where it asks for help, or is wrong."""
    # These imports take some time, too. They wait until a signal ends the program quietly.
    from plumbing import options
    parsers = {"train.py": options.train, "glue.py": options.glue, "compare.py": options.compare}
    cli.repair_streams()
    status = cli.exit_status(parsers[program])
    if status:
        sys.exit(status)


if running_program():
    for signum in cli.stopping_signals():
        signal.signal(signum, end_at_once)
    check_command_line(running_program())
