"""How far a program is: tqdm's bar in a terminal. A file or a pipe would keep the bar's drawings as
one endless line, so there each drawing is a line of its own, and they are half a minute apart."""
import sys

from tqdm import tqdm


class LogLines:
    """The stream to which tqdm writes where stderr is no terminal: each drawing becomes a line,
    written at once, so that none is left half."""

    def write(self, drawing):
        words = drawing.strip()  # of the carriage return before it, and of blanks that clear it
        if words:
            sys.stderr.write(words + "\n")

    def flush(self):
        sys.stderr.flush()


def bar(total, unit, desc="", **options):
    """tqdm's progress of `total` units of work (None: nobody knows how many), on stderr. desc says
    what is done. options: others of tqdm's, such as `initial` and `unit_scale`."""
    stream = {"mininterval": 0.5, "dynamic_ncols": True}
    if not sys.stderr.isatty():
        stream = {"mininterval": 30, "miniters": 1, "ncols": 100, "ascii": True, "file": LogLines()}
    return tqdm(total=total, unit=unit, desc=desc, **stream, **options)
