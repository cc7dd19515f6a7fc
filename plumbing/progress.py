"""How far a program is: a bar in a terminal, and lines of text where a file or a pipe reads.

    with progress.bar(total, "step") as bar:
        bar.update(1)
        bar.write("a line on stdout")

In a terminal this is tqdm's bar, which is drawn over itself again and again. A log would keep it
as one endless line. So there the same facts are printed as a line, after about each tenth of the
work and at least each minute:

    30%, 3.00T of 10.0T FLOP, 00:12 so far, 00:28 left, 250GFLOP/s, loss 3.214

What is left is told by the speed of the last 30% of the work. A machine may become busy, or idle,
and work may begin with what is quick. A shorter part would tell of chance (docs/LOG.md).
"""
import sys
import time
from collections import deque

from tqdm import tqdm

SHORTEST_PAUSE, LONGEST_PAUSE = 2, 60  # seconds between two lines
RECENT = 0.3  # of the work: the part over which the speed is measured
# In the words of tqdm.format_meter:
SHARE = "{percentage:.0f}%, {n_fmt} of {total_fmt}{unit}, {elapsed} so far, {remaining} left"
AMOUNT = "{n_fmt}{unit}, {elapsed} so far"  # where nobody knows the total
TIMES = "{percentage:.0f}%, {elapsed} so far, {remaining} left{postfix}"  # without a unit
TIMES_BAR = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"


def bar(total, unit, desc="", initial=0, unit_scale=False, disable=False):
    """The progress of `total` units of work (None: nobody knows how many), printed on stderr.

    unit: its name, or None, where only the share and the time are shown. desc says what is done,
    `initial` of it is done already, and unit_scale writes 1.2M for 1234567."""
    options = {"unit": unit, "desc": desc, "initial": initial, "unit_scale": unit_scale,
               "disable": disable}
    if sys.stderr.isatty():
        return Bar(total, **options)
    return Lines(total, **options)


class Speed:
    """Units of work a second, over the last 30% of `total` units (None: since the beginning).

    n: how many are done when it begins."""

    def __init__(self, n, total):
        self.span, self.marks = total and RECENT * total, deque([(time.monotonic(), n)])

    def note(self, n):
        """Takes down that n units are done by now. Half a second is soon enough for the next."""
        now = time.monotonic()
        if now - self.marks[-1][0] >= 0.5:
            self.marks.append((now, n))
            while self.span and len(self.marks) > 2 and n - self.marks[1][1] >= self.span:
                self.marks.popleft()

    def after(self, n):
        """The speed now that n units are done. None where nothing is known of it."""
        began, first = self.marks[0]
        seconds = time.monotonic() - began
        return (n - first) / seconds if seconds > 0 and n > first else None


class Bar(tqdm):
    """tqdm's bar, with the speed of what was done last."""

    def __init__(self, total, unit, initial=0, **options):
        self.speed = Speed(initial, total)
        form = {"bar_format": TIMES_BAR} if unit is None else {"unit": unit}
        super().__init__(total=total, initial=initial, mininterval=0.5, dynamic_ncols=True,
                         **form, **options)

    def update(self, n=1):
        """Counts n more units, and draws the bar where that is due."""
        self.speed.note(self.n + n)
        return super().update(n)

    @property
    def format_dict(self):
        """What the bar is drawn from."""
        return {**super().format_dict, "rate": self.speed.after(self.n)}


class Lines:
    """Progress as lines of text, with those methods of a tqdm bar that this project uses."""

    def __init__(self, total, unit, desc="", initial=0, unit_scale=False, disable=False):
        self.total, self.unit, self.unit_scale = total, unit, unit_scale
        self.desc, self.postfix, self.disable = desc, "", disable
        self.initial = self.n = self.printed_n = initial
        self.began = self.printed_at = time.monotonic()
        self.speed = Speed(initial, total)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.n != self.printed_n:  # the last state, however the work ended
            self.print_line()

    def update(self, n=1):
        """Counts n more units, and prints a line where one is due."""
        self.n += n
        self.speed.note(self.n)
        pause = time.monotonic() - self.printed_at
        is_tenth = self.tenths(self.n) > self.tenths(self.printed_n)
        if pause > LONGEST_PAUSE or pause > SHORTEST_PAUSE and is_tenth:
            self.print_line()

    def tenths(self, n):
        """How many tenths of the work n units are."""
        return 10 * n // self.total if self.total else 0

    def print_line(self):
        """Prints how far the work is. A line is written at once, so that none is left half."""
        self.printed_at, self.printed_n = time.monotonic(), self.n
        if not self.disable:
            sys.stderr.write(self.line(self.printed_at - self.began) + "\n")
            sys.stderr.flush()

    def line(self, seconds):
        """What is printed after so many seconds: what is done, the share, the amount, time, speed
        and the postfix, in tqdm's spelling."""
        form, unit = TIMES, self.unit or ""
        if self.unit is not None:
            between = "" if unit.startswith(" ") else " "  # a number and its unit
            form = (SHARE if self.total else AMOUNT).replace("{unit}", between + "{unit}")
            form += ", {rate_fmt}{postfix}"
        words = tqdm.format_meter(self.n, self.total, seconds, unit=unit,
                                  unit_scale=self.unit_scale, initial=self.initial,
                                  rate=self.speed.after(self.n), postfix=self.postfix,
                                  bar_format=form)
        return " ".join(f"{self.desc}: {words}".removeprefix(": ").split())

    def set_description_str(self, desc):
        """Changes what is done."""
        self.desc = desc

    def set_postfix_str(self, postfix, refresh=False):
        """Changes what stands at the end of a line."""
        self.postfix = postfix

    def write(self, words):
        """Prints words on stdout. It has the name of tqdm's own method, which clears its bar."""
        print(words)
