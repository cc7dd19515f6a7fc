"""What happens before torch is imported, which takes two seconds.

The root's programs import this file before torch. Where one of them is the program that runs, its
command line is read here for the first time, so that --help and mistyped options are answered at
once, and a signal during the imports ends the program quietly: nothing has been written yet.
Where a root file is merely imported, nothing happens.
"""
import os
import signal
import sys
from pathlib import Path

from plumbing import cli, options

PARSERS = {"train.py": options.train, "glue.py": options.glue, "compare.py": options.compare}


def running_program():
    """The name of the root's program that runs, like "train.py", or None."""
    main_file = getattr(sys.modules["__main__"], "__file__", None)
    if main_file is None or Path(main_file).resolve().parent != Path(__file__).resolve().parents[1]:
        return None
    return Path(main_file).name


def end_at_once(signum, frame):
    os._exit(128 + signum)


if running_program() in PARSERS:
    for signum in cli.stopping_signals():
        signal.signal(signum, end_at_once)
    cli.repair_streams()
    status = cli.exit_status(PARSERS[running_program()])
    if status:
        sys.exit(status)
