"""The runs that lie in a folder: what each one is, how far it is, and what it reached.

Nothing is written, and a run that goes on is not disturbed: its files are read, not its lock.
"""
import json
import math
from typing import NamedTuple, Optional

from files import checkpoints, disk, gluefiles
from program import cli
from program.cli import UserError
from running.options import COPIED

import budget
import distill
from measure import scores
from reporting.words import listed

WITHIN = ("*", "*/*", "*/cells/*")  # where runs lie below the folder
# What the settings of every run say.
SAID = {"strategy": str, "model": str, "data": list, "unique_tokens": (int, type(None)),
        "vocab_size": int, "flops_budget": int}
# The losses of a validation of masked words.
LOSSES = ("val_loss", "unigram_loss", "neighbour_loss")
# Fine-tunings that differ in one of these are not averaged.
PROTOCOL = ("data", "pool", "seq_len")


class FoundRun(NamedTuple):
    """A run, as its files say."""
    name: str                # its folder, below the one that is listed
    settings: dict           # of its run.json
    finished: bool
    spent: int               # FLOPs so far
    before: Optional[int]    # FLOPs of the weights that it began with; None where nobody knows
    validations: list        # the rows of its log with a validation
    score: Optional[tuple]   # (mean over tasks, number of tasks)

    @property
    def strategy(self):
        return self.settings["strategy"] + COPIED * (self.settings.get("init") == "teacher")

    @property
    def losses(self):
        """The rows with a masked-word loss."""
        return [row for row in self.validations
                if all(is_number(row.get(key)) for key in LOSSES)]


def is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def is_run(path):
    return (path / "run.json").exists()


def runs_in(folder):
    """The FoundRuns below a folder, by name. What is damaged, or no run, is named in a line."""
    found, empty = [], []
    paths = sorted({path for pattern in WITHIN for path in folder.glob(pattern) if path.is_dir()})
    for path in paths:
        name = str(path.relative_to(folder))
        try:
            if is_run(path):
                found.append(run_in(path, name))
            elif path.parent == folder and not any(is_run(below) for below in paths
                                                   if path in below.parents):
                empty.append(name)
        except (UserError, OSError) as failure:
            is_ours = isinstance(failure, UserError)
            words = cli.one_line(failure) if is_ours else cli.system_error(failure)
            cli.say(f"skipped: {name}: {words}")
    if empty:
        cli.say(f"no run in {listed(empty)}")
    return found


def run_in(path, name):
    """The FoundRun in a folder. Raises UserError where it is damaged, or another program's."""
    record, log = disk.read_json(path / "run.json"), path / "log.jsonl"
    settings, before = record.get("settings"), record.get("flops_before", 0)
    is_ours = isinstance(settings, dict) and isinstance(before, (int, type(None))) and all(
        isinstance(settings.get(key), kind) for key, kind in SAID.items())
    if not is_ours or settings["flops_budget"] <= 0:
        raise UserError("its run.json is not that of a run of train.py")
    budget.size(settings["model"])  # raises where it is none
    if settings["strategy"] not in distill.STRATEGIES:
        raise UserError(f"there is no strategy {settings['strategy']!r} here")
    disk.check_files(path, ["log.jsonl"])  # with the checksum that a finished run has of it
    rows, is_finished = rows_of(log), bool(record.get("finished"))
    return FoundRun(name, settings, is_finished, rows[-1]["flops"] if rows else 0, before,
                    [row for row in rows if "val_terms" in row],
                    score_in(path) if is_finished else None)


def rows_of(log):
    """The rows of a log, without lines that are damaged: of a run that goes on, the last one may be
    half written."""
    rows = []
    for line in disk.read_text(log).splitlines() if log.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and is_number(row.get("flops")):
            rows.append(row)
    return rows


class Scored(NamedTuple):
    """What glue.json alone says of a task, as `scores.summary` reads it."""
    scored: tuple
    majority: Optional[dict] = None


def score_in(path):
    """(mean over tasks, number of tasks) of a model's glue.json, None where it has no scores. The
    newest fine-tuning says how, and those that were made otherwise do not count.

    Raises UserError where the file is damaged."""
    cells = gluefiles.read_glue_json(path / "glue.json")["cells"]
    if cells and (path / "model.safetensors").exists():  # students.zip has no weights
        sha256 = checkpoints.model_sha256(path)[:16]
        cells = [cell for cell in cells if cell.get("model_sha256") == sha256]
    by_task = {}
    for cell in cells:
        if all(cell.get(key) == cells[-1].get(key) for key in PROTOCOL):
            by_task.setdefault(cell.get("task"), []).append(cell)
    try:
        results = {task: scores.summary(Scored(tuple(of_task[0]["scores"])), of_task)
                   for task, of_task in by_task.items()}
        return (scores.score_of(results), len(results)) if results else None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise UserError("its glue.json is damaged: remove it, and score the model again") from None
