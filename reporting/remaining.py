"""How much longer a comparison takes, while its cells run: by the estimate of price.py, and by what
the running cells have left behind so far."""
import json
import os
import re

from reporting.price import Work, makespan, seconds


def spent(cell):
    """FLOPs that a running cell has spent, from the last line of its log."""
    try:
        with open(cell.folder / "log.jsonl", "rb") as log:
            return min(cell.flops, json.loads(tail(log).splitlines()[-1])["flops"])
    except (OSError, ValueError, LookupError, TypeError):  # no line yet, or half of one
        return 0


def fine_tuned(path):
    """The share of its fine-tuning's steps that glue.py has done, by what it printed into a file.
    None where it has not printed any."""
    try:
        with open(path, "rb") as printed:
            steps = re.findall(rb"(\d+)/(\d+) \[[^]]*(?:step/s|s/step)", tail(printed))
    except OSError:
        return None
    return int(steps[-1][0]) / int(steps[-1][1]) if steps else None


def tail(file):
    """The last 2,000 bytes of an open file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
    return file.read()


class Remaining:
    """The seconds that cells still need. `total` is how many they need at the beginning.

    prices: a price.Prices. rate: FLOP/s of each of the `jobs` cells that run at once. log_of(cell):
    where the cell's output goes."""

    def __init__(self, prices, queue, rate, jobs, log_of):
        self.prices, self.rate, self.jobs, self.log_of = prices, rate, jobs, log_of
        self.before = {cell: self.seconds_without(cell, self.pretrained(cell)) for cell in queue}
        self.total = self.seconds_of([], queue)

    def seconds_of(self, running, queue):
        """The seconds until cells that run, and cells that wait, are finished."""
        times = [min(self.before[cell], self.seconds_without(cell, self.done(cell)))
                 for cell in running]
        return makespan([*times, *(self.before[cell] for cell in queue)], self.jobs)

    def seconds_without(self, cell, done):
        """The seconds of a cell of which some Work is done."""
        return seconds(self.prices.work(cell), self.rate) - seconds(done, self.rate)

    def pretrained(self, cell):
        """The Work of pretraining that a cell has done."""
        flops = spent(cell)
        share = flops / cell.flops if cell.flops else 0
        return Work(flops, share * self.prices.work(cell).validation)

    def done(self, cell):
        """The Work that a running cell has done. A program that is on its way has half started: it
        is as likely less as more."""
        work, share = self.prices.work(cell), fine_tuned(self.log_of(cell))
        if share is not None:  # glue.py runs, which is the last of its programs
            return work._replace(fine_tuning=share * work.fine_tuning)
        if (cell.folder / "model.safetensors").exists():  # train.py has ended
            return work._replace(fine_tuning=0, starts=min(1.5, work.starts))
        has_begun = (cell.folder / "log.jsonl").exists()
        return self.pretrained(cell)._replace(starts=1 if has_begun else 0.5)
