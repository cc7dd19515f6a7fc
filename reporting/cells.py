"""The cells of a comparison. A cell is one student: a line of shell that trains and scores it.

`grid` makes the cells, `run` runs those that are not finished, and `outcome` reads what a cell left
behind.
"""
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple, Optional

from files import disk
from plumbing import cli, gluefiles, gluejson, hardware, weights
from plumbing.cli import UserError
from plumbing.limits import cores
from program import progress, runfolder
from program.options import COPIED, place, words_of

import distill
import glue
from measure import scores
from reporting import handin
from reporting.price import LAPTOP_CORES, LAPTOP_RATE, Prices, seconds
from reporting.remaining import Remaining
from reporting.words import spell
from world import tasks as world_tasks

ROOT = Path(__file__).resolve().parents[1]
# What a comparison is about. A folder holds one.
FIXED = ("model", "teacher", "teacher_model", "teacher_flops", "data", "glue_data", "glue_grid",
         "tasks", "glue_seeds", "lr", "lr_grid", "train_options", "distil_options", "glue_options",
         "head_teacher")
# What a comparison means that an earlier version began.
LATER = {"glue_options": "", "head_teacher": "None"}
# Of a comparison whose cells ran elsewhere.
FILES = ("teacher", handin.SCORES, "cells", "logs", "lock")


TEACHERS_SCORES = "teacher's scores"


class Cell(NamedTuple):
    """A student. Or the teacher, whose strategy is "teacher", or how it is scored, whose strategy
    is TEACHERS_SCORES."""
    strategy: str
    flops: int                      # the budget
    unique_tokens: Optional[int]    # None: unlimited data
    seed: int
    lr: Optional[float]             # None: train.py's own
    folder: Path
    commands: tuple                 # argument lists that run one after the other: train.py, glue.py

    @property
    def line(self):
        """The cell as a line of shell."""
        return " && ".join("python " + shlex.join(command) for command in self.commands)


# --------------------------------------------------------------------------------------------------
# The grid


def teacher_of(args):
    """(name of the teacher, the Cell that trains it, or None where it exists)."""
    if args.teacher:
        return args.teacher, None
    folder, size = args.out / "teacher", args.teacher_model
    command = ["train.py", "--strategy", "scratch", "--flops", spell(args.teacher_flops),
               "--model", str(size), *data_options(args),
               *words_of(args.train_options, "--train-options")]
    lr = None
    if args.data == "stories":
        # A deeper model wants a smaller rate than the default of its width: on stories the loss of
        # 4x128 ends at 0.49 with 1e-3 and at 0.81 with 2e-3 (docs/LOG.md).
        # lr = 2e-3 sqrt(128 / h) 2 / max(2, L)
        rate = 2e-3 * (128 / size.h) ** 0.5 * (2 / max(2, size.L))
        lr = float(f"{rate:.6g}")
        command += ["--lr", f"{lr:g}"]
    command += ["--out", str(folder)]
    return str(folder), Cell("teacher", args.teacher_flops, None, 0, lr, folder,
                             (tuple(command),))


def data_options(args):
    """The words of a command line that say what to train on."""
    return [] if args.data == "stories" else ["--data", *words_of(args.data, "--data")]


def cell_name(strategy, flops, unique_tokens, seed, lr):
    """The name of a cell's folder (collect.py reads it back)."""
    tokens = "all" if unique_tokens is None else spell(unique_tokens)
    name = f"{strategy}-{spell(flops)}-{tokens}-seed{seed}"
    return name + (f"-lr{lr:g}" if lr else "")


def cell_of(args, teacher, strategy, flops, unique_tokens, seed, lr):
    """The Cell of one student. All but what makes the strategy is equal for all strategies."""
    folder = args.out / "cells" / cell_name(strategy, flops, unique_tokens, seed, lr)
    base = strategy.removesuffix(COPIED)
    train = ["train.py", "--strategy", base, "--flops", spell(flops), "--model",
             str(args.model), *data_options(args), "--seed", str(seed),
             *words_of(args.train_options, "--train-options")]
    if unique_tokens is not None:
        train += ["--unique-tokens", str(unique_tokens)]
    if lr:
        train += ["--lr", f"{lr:g}"]
    if strategy == "scratch":  # the same tokenizer for all
        train += ["--tokenizer", teacher]
    else:
        if args.head_teacher and reads_predictions(args, strategy):
            teacher = args.head_teacher
        train += ["--teacher", teacher]
    if base != "scratch":
        train += words_of(args.distil_options, "--distil-options")
    if strategy != base:
        train += ["--init", "teacher"]
    commands = (*train, "--out", str(folder)), scoring(args, folder)
    return Cell(strategy, flops, unique_tokens, seed, lr, folder, commands)


def scoring(args, model, *more):
    """The argument list that scores a model."""
    words = ["glue.py", str(model), "--tasks", args.tasks, "--seeds", str(args.glue_seeds),
             "--grid", args.glue_grid]
    if args.glue_data != "stories":
        words += ["--data", args.glue_data]
    return (*words, *words_of(args.glue_options, "--glue-options"), *more)


def scores_of_teacher(args, teacher):
    """The Cell that scores the teacher, as the students are scored."""
    folder = args.out / handin.SCORES
    command = scoring(args, teacher, "--out", str(folder))
    return Cell(TEACHERS_SCORES, 0, None, 0, None, folder, (command,))


def lesson_of(args, strategy):
    """The distill.Lesson of a strategy, for the comparison's pair of models."""
    return distill.lesson(strategy.removesuffix(COPIED), args.model, args.teacher_model)


def reads_predictions(args, strategy):
    """Whether a strategy reads the predictions of the teacher's head."""
    lesson = lesson_of(args, strategy)
    return lesson.teacher is not None and lesson.teacher.logits


def grid(args, teacher, rates):
    """All cells. rates: {strategy: learning rate or None}."""
    return [cell_of(args, teacher, strategy, flops, unique, seed, rates[strategy])
            for flops in args.budgets for unique in args.unique_tokens
            for seed in args.seed_numbers for strategy in args.strategies]


def tried_cells(args, teacher):
    """The cells of --lr-grid: every rate of each strategy, at the smallest budget, seed 0."""
    return [cell_of(args, teacher, strategy, args.budgets[0], args.unique_tokens[0], 0, lr)
            for strategy in args.strategies for lr in args.lr_grid or ()]


def phases_of(args, grid):
    """All cells, as lists of which each waits for the one before: the teacher, the rates that are
    tried, and the students beside the teacher's scores."""
    teacher, teacher_cell = teacher_of(args)
    tried = tried_cells(args, teacher)
    if tried:  # the best rate's student is one of the grid, and is not made again
        kind = args.budgets[0], args.unique_tokens[0], 0
        grid = [cell for cell in grid if (cell.flops, cell.unique_tokens, cell.seed) != kind]
    phases = [[*filter(None, [teacher_cell])], tried, [scores_of_teacher(args, teacher), *grid]]
    return [cells for cells in phases if cells]


def tasks_here(args):
    """(the tasks that students are scored on, ""), or (None, why they cannot be read). It asks no
    network."""
    if args.glue_data != "stories" and not disk.path_of(args.glue_data).exists():
        return None, "the tasks are not here"
    try:
        return tasks_of(args), ""
    except UserError as failure:
        return None, str(failure)


def print_list(args, teacher_cell, grid):
    """Prints the cells as lines of shell, the teacher's first."""
    if args.lr_grid:
        raise UserError("--list and --lr-grid: which cells there are depends on the rates that are "
                        "chosen; run the choice first, and give --lr")
    tasks, why_not = tasks_here(args)
    prices = Prices(args, tasks)
    for cell in [*filter(None, [teacher_cell]), *grid]:
        time = cli.duration(seconds(prices.work(cell), LAPTOP_RATE))
        more = ", and fine-tuning" if why_not and cell is not teacher_cell else ""
        cli.say(f"{cell.line}  # {cli.flops(cell.flops)} FLOPs, about {time} on two cores{more}")


def check_folder(args):
    """Raises UserError where --out holds other files, and no comparison."""
    leftover = disk.leftovers(r"compare\.json")
    names = [entry.name for entry in args.out.iterdir()]
    is_comparison = (args.out / "compare.json").exists()
    if not is_comparison and not all(name in FILES or leftover.fullmatch(name) for name in names):
        raise UserError(f"{args.out} holds other files, and no comparison: choose another --out")


def is_begun(out):
    """Whether a folder holds a comparison of which anything was made."""
    made = ("teacher/*", "cells/*/*", f"{handin.SCORES}/glue.json", handin.NAME, "report.md")
    return (out / "compare.json").exists() and any(any(out.glob(files)) for files in made)


def kept_settings(path):
    """The settings in a compare.json, as this version would have kept them."""
    kept = {**LATER, **disk.read_json(path)}
    for key in ("teacher", "head_teacher"):  # an earlier version kept them as they were typed
        if key in kept:
            kept[key] = place(kept[key])
    return kept


def claim_folder(args):
    """Makes --out the folder of this comparison. Raises UserError where it holds another one of
    which anything was begun."""
    path, fixed = args.out / "compare.json", {key: str(getattr(args, key)) for key in FIXED}
    if is_begun(args.out):
        old = kept_settings(path)
        different = [f"{key} was {old.get(key)} and is now {value}"
                     for key, value in fixed.items() if old.get(key) != value]
        if old != fixed:
            raise UserError(f"{args.out} holds another comparison ({'; '.join(different)}): choose "
                            "another --out")
    disk.write_json(path, fixed)
    args.settings = fixed


# --------------------------------------------------------------------------------------------------
# What cells left behind


@cache
def cached_tasks(data, names):
    """The tasks, read from disk once: `outcome` asks for them at every cell."""
    return gluefiles.load_tasks(data, names, world_tasks.examples)[0]


def tasks_of(args):
    """The tasks that students are scored on. Raises UserError where one of them is missing."""
    return cached_tasks(args.glue_data, args.tasks)


def outcome(cell, args):
    """What a finished cell left: {"record": run.json, "results": {task: summary}}. None while the
    cell is not finished.

    Raises UserError where the folder is not what the cell made: it was edited, or its student had
    another teacher."""
    if cell.strategy == TEACHERS_SCORES:
        results = results_of(cell, args, weights.model_sha256(args.teacher_folder))
        record = disk.optional_json(args.teacher_folder / "run.json")
        return results and {"record": record, "results": results}
    path = cell.folder / "run.json"
    if not path.exists():
        return None
    try:
        record = disk.read_json(path)
    except disk.Damaged:
        if runfolder.checkpoints(cell.folder):
            return None  # its own command takes run.json from the checkpoint
        raise
    check_settings(cell, args, record.get("settings", {}))
    if not record.get("finished"):
        return None
    if cell.strategy == "teacher":
        return {"record": record, "results": {}}
    results = results_of(cell, args, weights.model_sha256(cell.folder))
    return results and {"record": record, "results": results}


def results_of(cell, args, sha256):
    """{task: summary} from a cell's glue.json; None while a fine-tuning is missing. sha256: of the
    model. Raises UserError where another model was scored."""
    kept = gluejson.read(cell.folder / "glue.json")
    if any(scored.get("model_sha256") != sha256[:16] for scored in kept["cells"]):
        raise UserError(f"{cell.folder}: the model is not the one that was scored: it was edited, "
                        "or was scored by an earlier version; remove its glue.json, and it is "
                        "scored again")
    options_of_glue = glue.read_settings(cell.commands[-1][1:])
    device, dtype = hardware.select(options_of_glue.device, options_of_glue.dtype)
    size = args.teacher_model if cell.strategy == TEACHERS_SCORES else args.model
    wanted = glue.cells_of(options_of_glue, tasks_of(args), size.h, sha256, dtype, device.type)
    fine_tunings = [(task, gluejson.find(kept, one)) for task, one in wanted]
    return scores.results_of(tasks_of(args), fine_tunings)


def check_settings(cell, args, settings):
    """Raises UserError where a run's settings are not those that the cell asks for."""
    is_teacher = cell.strategy == "teacher"
    expected = {"flops_budget": cell.flops, "seed": cell.seed, "unique_tokens": cell.unique_tokens,
                "strategy": "scratch" if is_teacher else cell.strategy.removesuffix(COPIED),
                "model": str(args.teacher_model if is_teacher else args.model)}
    if cell.lr:
        expected["lr"] = cell.lr
    if cell.strategy not in ("scratch", "teacher"):
        is_headed = args.head_teacher and reads_predictions(args, cell.strategy)
        expected["teacher_sha256"] = args.head_sha256 if is_headed else args.teacher_sha256
    if cell.strategy.endswith(COPIED):
        expected["init"] = "teacher"
    wrong = [key for key, value in expected.items() if settings.get(key) != value]
    if wrong:
        raise UserError(f"{cell.folder} is not what its name says ({', '.join(wrong)}): it was "
                        "edited; remove it, and it is made again")


def check_texts(outcomes, args):
    """Raises UserError where students that are compared were trained on different texts: the text
    was edited while the comparison stood still. Of stories each seed has its own."""
    first = {}
    for cell, outcome in outcomes.items():
        settings = outcome["record"]["settings"]
        kind = (cell.unique_tokens, cell.seed) if args.data == "stories" else None
        other, text = first.setdefault(kind, (cell, settings["text_sha256"]))
        if settings["text_sha256"] != text:
            raise UserError(f"{cell.folder} and {other.folder} were trained on different texts: "
                            "the text was edited in between; choose another --out")


# --------------------------------------------------------------------------------------------------
# Running them


@contextlib.contextmanager
def stopping(running):
    """Whatever ends the work here also ends the running cells. Each saves its state, and the next
    comparison continues it."""
    try:
        yield
    finally:
        for process in running:
            # Not SIGINT: a script that starts a comparison with `&` lets all of it ignore that.
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait()


def run(cells, args, what):
    """Runs the cells that are not finished, args.jobs at a time. Returns {cell's name: its last
    line} for those that failed. what: the name of the progress bar."""
    queue = [cell for cell in cells if outcome(cell, args) is None]
    if not queue:
        return {}
    running, failed, number = {}, {}, len(queue)
    disk.make_folder(args.out / "logs")
    left = remaining(queue, args)
    bar = progress.bar(left.total, None, what)
    with cli.Signals() as signals, stopping(running), bar:
        while (queue or running) and not signals.stopped:
            while queue and len(running) < args.jobs:
                cell = queue.pop(0)
                process, output = start(cell, args)
                running[process] = cell, output
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                cell, output = running.pop(process)
                output.close()
                if process.returncode:
                    line = last_line(args, cell, process.returncode)
                    failed[cell.folder.name] = line
                    cli.say(f"failed: {cell.folder.name}: {line}", bar.write)
            ended = number - len(queue) - len(running)
            bar.set_postfix_str(f"{ended} of {number} ended", refresh=False)
            done = left.total - left.seconds_of([cell for cell, _ in running.values()], queue)
            bar.update(max(0, done - bar.n))  # it never goes back, even where a log is damaged
        if signals.stopped:
            cli.say("stopped: the same command continues", bar.write)
            raise signals.stopped
    return failed


# FLOP/s of one core, with and without bf16. The bar needs to know what is long beside a start. A
# second core adds little at these sizes.
CORE_RATE = {"fp32": LAPTOP_RATE / LAPTOP_CORES, "bf16": 9e10}


def remaining(queue, args):
    """The Remaining of cells that are going to run."""
    _, dtype = hardware.select("auto", "auto")
    return Remaining(Prices(args, tasks_of(args)), queue, CORE_RATE[dtype], args.jobs,
                     lambda cell: log_of(args, cell))


def log_of(args, cell):
    """Where a cell's output goes."""
    return args.out / "logs" / f"{cell.folder.name}.txt"


def start(cell, args):
    """Starts a cell's commands. Returns (process, its output file).

    The process holds the comparison's lock, too. So if the comparison is killed, the next one waits
    until its cells have ended."""
    threads = str(max(1, cores() // args.jobs))
    line = " && ".join(shlex.join([sys.executable, str(ROOT / program), *words])
                       for program, *words in cell.commands)
    line = f"trap 'exit 143' TERM; {line}"  # else the shell would end before what it runs
    output = open(log_of(args, cell), "w")
    # In a session of its own: Ctrl-C reaches this program alone, which then stops its cells.
    process = subprocess.Popen(line, shell=True, stdout=output, stderr=subprocess.STDOUT,
                               env=cli.environment_of_one(OMP_NUM_THREADS=threads),
                               start_new_session=True, pass_fds=[args.lock.fileno()])
    return process, output


def last_line(args, cell, status):
    """The last line that a failed cell printed."""
    text = log_of(args, cell).read_text(errors="replace").replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {status}"


def chosen_rates(args, teacher, failed):
    """({strategy: learning rate}, [(strategy, rate, development score)] of the rates tried).

    With --lr-grid each strategy gets the rate with the best development score, at the smallest
    budget, seed 0. The cells that fail are added to `failed`."""
    if not args.lr_grid:
        return args.rates, []
    cells = tried_cells(args, teacher)
    failed |= run(cells, args, "learning rates")
    tried = []
    for cell in cells:
        left = outcome(cell, args)
        if left:
            score = scores.score_of(left["results"], chosen_on=True)
            tried.append((cell.strategy, cell.lr, score))
    rates = {}
    for strategy in args.strategies:
        rows = [row for row in tried if row[0] == strategy]
        if rows:
            rates[strategy] = max(rows, key=lambda row: row[2])[1]
    without = [strategy for strategy in args.strategies if strategy not in rates]
    if without:
        raise UserError(f"no learning rate of --lr-grid worked for {', '.join(without)}: see "
                        f"{args.out}/logs")
    return rates, tried
