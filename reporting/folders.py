"""The runs that lie in a folder: what each one is, how far it is, and what it reached.

Nothing is written, and a run that goes on is not disturbed: its files are read, not its lock.
"""
import json
import math
import os
from typing import NamedTuple, Optional

from files import disk
from plumbing import cli, gluejson, weights
from plumbing.cli import UserError
from program import runfolder
from program.options import COPIED

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


class Run(NamedTuple):
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
    return (path / "run.json").exists() or bool(runfolder.checkpoints(path))


def find(folder):
    """The Runs below a folder, by name. What is damaged, or no run, is named in a line."""
    found, empty = [], []
    paths = sorted({path for pattern in WITHIN for path in folder.glob(pattern)})
    for path in filter(os.path.isdir, paths):
        name = str(path.relative_to(folder))
        try:
            if is_run(path):
                found.append(read(path, name))
            elif path.parent == folder and not any(is_run(below) for below in paths
                                                   if path in below.parents):
                empty.append(name)
        except UserError as failure:
            cli.say(f"skipped: {name}: {cli.one_line(failure)}")
        except OSError as failure:
            cli.say(f"skipped: {name}: {cli.system_error(failure)}")
    if empty:
        cli.say(f"no run in {listed(empty)}")
    return found


def read(path, name):
    """The Run in a folder. Raises UserError where it is damaged, or another program's."""
    record, log = contents(path)
    settings, before = record.get("settings"), record.get("flops_before", 0)
    if not is_ours(settings) or not isinstance(before, (int, type(None))):
        raise UserError("its run.json is not that of a run of train.py")
    budget.size(settings["model"])  # raises where it is none
    if settings["strategy"] not in distill.STRATEGIES:
        raise UserError(f"there is no strategy {settings['strategy']!r} here")
    disk.check_files(path, ["log.jsonl"])  # with the checksum that a finished run has of it
    rows, is_finished = rows_of(log), bool(record.get("finished"))
    return Run(name, settings, is_finished, rows[-1]["flops"] if rows else 0, before,
               [row for row in rows if "val_terms" in row],
               score_of(path) if is_finished else None)


def is_ours(settings):
    """Whether a value from a run.json is the settings of a run of train.py."""
    is_whole = isinstance(settings, dict) and all(
        isinstance(settings.get(key), kind) for key, kind in SAID.items())
    return is_whole and settings["flops_budget"] > 0


def contents(path):
    """(run.json, the text of log.jsonl). Where one is missing, both are those that the newest
    checkpoint holds."""
    newest = runfolder.checkpoints(path)[:1]
    if newest and not all((path / name).exists() for name in ("run.json", "log.jsonl")):
        saved = runfolder.read_checkpoint(newest[0])
        if saved is None:
            raise UserError("run.json or log.jsonl is missing, and its checkpoint is damaged")
        return saved["record"], saved["log"]
    log = path / "log.jsonl"
    return disk.read_json(path / "run.json"), disk.read_text(log) if log.exists() else ""


def rows_of(log):
    """The rows of a log, without lines that are damaged: of a run that goes on, the last one may be
    half written."""
    rows = []
    for line in log.splitlines():
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


def score_of(path):
    """(mean over tasks, number of tasks) of a model's glue.json, None where it has no scores. The
    newest fine-tuning says how, and those that were made otherwise do not count.

    Raises UserError where the file is damaged."""
    cells = gluejson.read(path / "glue.json")["cells"]
    if cells and (path / "model.safetensors").exists():  # students.zip has no weights
        sha256 = weights.model_sha256(path)[:16]
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
