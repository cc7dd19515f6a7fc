"""The cells of a comparison. A cell is one student: a line of shell that trains and scores it. Here
they are made, run, and read. `study` is the comparison's settings, a compare.Settings.
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

from files import checkpoints, disk, gluefiles
from files.teachers import fetch_model
from program import cli, progress
from program.cli import UserError
from running import machine
from running.options import COPIED, words_of

import distill
import glue
from measure import scores
from reporting.presets import FIXED, read_texts, texts
from reporting.words import spell
from world import tasks as world_tasks

USERS_THREADS = os.environ.get("OMP_NUM_THREADS")  # as many as the user asks for, if at all
ROOT = Path(__file__).resolve().parents[1]
SCORES = "teacher-scores"  # the folder with the teacher's glue.json


class Cell(NamedTuple):
    """A student. Or the teacher, whose strategy is "teacher", or how it is scored, whose strategy
    is SCORES."""
    strategy: str
    flops: int                      # the budget
    unique_tokens: Optional[int]    # None: unlimited data
    seed: int
    lr: Optional[float]             # None: train.py's own
    folder: Path
    commands: tuple                 # argument lists that run one after the other: train.py, glue.py
    teacher: Optional[str] = None   # the model that it learns from, or whose layers it copies


# --------------------------------------------------------------------------------------------------
# The lines of shell


def training(study, strategy, flops, size):
    """The words of train.py that all students share, and the teacher."""
    data = [] if study.data == "stories" else ["--data", *words_of(study.data, "--data")]
    return ["train.py", "--strategy", strategy, "--flops", spell(flops), "--model", str(size),
            *data, *words_of(study.train_options, "--train-options")]


def teacher(study):
    """The Cell that trains the teacher, or None where it exists."""
    if study.teacher:
        return None
    size, folder = study.teacher_model, study.out / "teacher"
    command = training(study, "scratch", study.teacher_flops, size)
    if study.data == "stories":
        # A deeper model wants a smaller rate than the default of its width: on stories the loss of
        # 4x128 ends at 0.49 with 1e-3 and at 0.81 with 2e-3 (docs/LOG.md).
        # lr = 2e-3 sqrt(128 / h) 2 / max(2, L)
        command += ["--lr", f"{2e-3 * (128 / size.h) ** 0.5 * (2 / max(2, size.L)):.6g}"]
    command = (*command, "--out", str(folder))
    return Cell("teacher", study.teacher_flops, None, 0, None, folder, (command,))


def student(study, strategy, flops, unique, seed):
    """The Cell of one student. All but what makes the strategy is equal for all strategies."""
    base, lr = strategy.removesuffix(COPIED), study.rates[strategy]
    source = study.teacher or str(study.out / "teacher")
    # The name says every digit, so that two names are two students.
    name = f"{strategy}-{spell(flops)}-{spell(unique) if unique else 'all'}-seed{seed}"
    folder = study.out / "cells" / (name + (f"-lr{lr!r}" if lr else ""))
    train = [*training(study, base, flops, study.model), "--seed", str(seed)]
    train += ["--unique-tokens", str(unique)] if unique else []
    train += ["--lr", repr(lr)] if lr else []
    if strategy == "scratch":  # the same tokenizer for all
        train += ["--tokenizer", source]
        source = None
    else:
        lesson = distill.lesson(base, study.model, study.teacher_model)
        if study.head_teacher and lesson.teacher and lesson.teacher.logits:
            source = study.head_teacher
        train += ["--teacher", source]
    if base != "scratch":
        train += words_of(study.distil_options, "--distil-options")
    if strategy != base:
        train += ["--init", "teacher"]
    commands = (*train, "--out", str(folder)), scoring(study, folder)
    return Cell(strategy, flops, unique, seed, lr, folder, commands, source)


def scoring(study, model):
    """The argument list that scores a model."""
    data = [] if study.glue_data == "stories" else ["--data", study.glue_data]
    return ("glue.py", str(model), "--tasks", study.tasks, "--seeds", str(study.glue_seeds),
            "--grid", study.glue_grid, *data, *words_of(study.glue_options, "--glue-options"))


def scores_of_teacher(study, folder):
    """The Cell that scores the teacher, as the students are scored. folder: of the comparison."""
    command = *scoring(study, study.teacher or study.out / "teacher"), "--out", str(folder / SCORES)
    return Cell(SCORES, 0, None, 0, None, folder / SCORES, (command,))


# --------------------------------------------------------------------------------------------------
# What cells left behind


@cache
def tasks_of(data, names):
    """The tasks that students are scored on, read from disk once. Raises UserError where one of
    them is missing."""
    return gluefiles.load_tasks(data, names, world_tasks.examples)[0]


@cache
def sha256_of(name):
    """The SHA-256 of a teacher's weights, read from disk once."""
    return checkpoints.weights_sha256(fetch_model(name))


def outcome(cell, study):
    """What a finished cell left: {"record": run.json, "results": {task: summary}}. None while the
    cell is not finished. Raises UserError where the folder is not what the cell made."""
    if cell.strategy == SCORES:
        model = fetch_model(cell.commands[0][1])
        record = disk.optional_json(model / "run.json")
    else:
        model, record = cell.folder, disk.optional_json(cell.folder / "run.json")
        if record:
            check_record(cell, study, record)
        if not record.get("finished"):
            return None
        if cell.strategy == "teacher":
            return {"record": record, "results": {}}
    results = results_of(cell, study, checkpoints.model_sha256(model))
    return results and {"record": record, "results": results}


def check_record(cell, study, record):
    """Raises UserError where a run's settings are not those that the cell asks for."""
    is_teacher, settings = cell.strategy == "teacher", record.get("settings", {})
    expected = {"flops_budget": cell.flops, "seed": cell.seed, "unique_tokens": cell.unique_tokens,
                "strategy": "scratch" if is_teacher else cell.strategy.removesuffix(COPIED),
                "model": str(study.teacher_model if is_teacher else study.model)}
    if cell.lr:
        expected["lr"] = cell.lr
    if cell.strategy.endswith(COPIED):
        expected["init"] = "teacher"
    if cell.teacher:
        expected["teacher_sha256"] = sha256_of(cell.teacher)
    wrong = [key for key, value in expected.items() if settings.get(key) != value]
    if wrong:
        raise UserError(f"{cell.folder} is not what its name says ({', '.join(wrong)}): it was "
                        "edited; remove it, and it is made again")


def results_of(cell, study, sha256=None):
    """{task: summary} from a cell's glue.json, on whatever machine, in the precision that was asked
    for; None while a fine-tuning is missing. sha256: of the model (None: any). Raises UserError
    where another one was scored."""
    kept = gluefiles.read_glue_json(cell.folder / "glue.json")
    if sha256 and any(scored.get("model_sha256") != sha256[:16] for scored in kept["cells"]):
        raise UserError(f"{cell.folder}: the model is not the one that was scored: it was edited; "
                        "remove its glue.json, and it is scored again")
    asked, tasks = glue.read_settings(cell.commands[-1][1:]), tasks_of(study.glue_data, study.tasks)
    h = (study.teacher_model if cell.strategy == SCORES else study.model).h
    dtype, fine_tunings = asked.dtype.replace("auto", ""), []
    for task, wanted in glue.cells_of(asked, tasks, h, "", dtype, ""):
        wanted = {key: value for key, value in wanted.items() if value != ""}
        fine_tunings.append((task, gluefiles.finished_cell(kept, wanted)))
    return scores.results_of(tasks, fine_tunings)


def check_texts(outcomes, study):
    """Raises UserError where students that are compared were trained on different texts: the text
    was edited while the comparison stood still. Of stories each seed has its own."""
    first = {}
    for cell, found in outcomes.items():
        kind = (cell.unique_tokens, cell.seed) if study.data == "stories" else None
        sha256 = found["record"]["settings"]["text_sha256"]
        if sha256 != first.setdefault(kind, sha256):
            raise UserError(f"{cell.folder} was trained on another text than students before it: "
                            "the text was edited in between; choose another --out")


# --------------------------------------------------------------------------------------------------
# Running them


def claim_folder(study):
    """Makes --out the folder of this comparison. Returns how many threads each student has, as a
    text: as many as the first ones, whatever --jobs says now. Another number would change the order
    in which sums are added up, and with it the last bits of the weights.

    Raises UserError where the folder holds something else."""
    path, threads = study.out / "compare.json", None
    names = {entry.name for entry in study.out.iterdir() if not entry.name.startswith(".")}
    made = names & {"teacher", "cells", SCORES}
    if not path.exists() and names - {"lock", "logs", *made}:
        raise UserError(f"{study.out} holds other files, and no comparison: choose another --out")
    if path.exists() and made:
        old = read_texts(path, type(study))
        threads = str(disk.read_json(path).get("threads") or "")  # "": not said yet
        changed = [f"{name} was {old[name]} and is now {getattr(study, name)}"
                   for name in FIXED if old[name] != getattr(study, name)]
        if changed:
            raise UserError(f"{study.out} holds another comparison ({'; '.join(changed)}): choose "
                            "another --out")
    if threads and USERS_THREADS not in (None, threads):
        cli.say(f"OMP_NUM_THREADS is {USERS_THREADS}, and the students so far had {threads}: those "
                "to come are not what they would have been, bit for bit")
        threads = USERS_THREADS
    threads = threads or threads_of(study.jobs)
    disk.write_json(path, {**texts(study), "threads": threads})
    return threads


def threads_of(jobs):
    """How many threads a cell has, of so many that run at once, as a text."""
    return USERS_THREADS or str(max(1, machine.cores() // jobs))


def run(cells, study, lock, threads, what):
    """Runs the cells that are not finished, study.jobs at a time. Returns {cell's name: its last
    line} for those that failed. what: the name of the progress bar."""
    queue, running, failed = [cell for cell in cells if outcome(cell, study) is None], {}, {}
    disk.make_folder(study.out / "logs")
    bar = progress.bar(len(queue), "cell", what, disable=not queue)
    with cli.Signals() as signals, stopping(running), bar:
        while (queue or running) and not signals.stopped:
            while queue and len(running) < study.jobs:
                cell = queue.pop(0)
                log = study.out / "logs" / f"{cell.folder.name}.txt"
                running[start(cell, log, lock, threads)] = log
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                log = running.pop(process)
                if process.returncode:
                    printed = log.read_text(errors="replace").split("\n")
                    failed[log.stem] = next(filter(str.strip, reversed(printed)), "no word")
                    cli.say(f"failed: {log.stem}: {failed[log.stem]}", bar.write)
                bar.update(1)
        if signals.stopped:
            cli.say("stopped: the same command continues", bar.write)
            raise signals.stopped
    return failed


@contextlib.contextmanager
def stopping(running):
    """Whatever ends the work here also ends the running cells, {process: log}. Each saves its
    state, and the next comparison continues it."""
    try:
        yield
    finally:
        for process in running:
            # Not SIGINT: a script that starts a comparison with `&` lets all of it ignore that.
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait()


def start(cell, log, lock, threads):
    """The process that runs a cell's commands, and prints into the file `log`. It holds the
    comparison's lock: if the comparison is killed, the next one waits until its cells ended."""
    line = " && ".join(shlex.join([sys.executable, str(ROOT / program), *words])
                       for program, *words in cell.commands)
    line = f"trap 'exit 143' TERM; {line}"  # else the shell would end before what it runs
    with open(log, "w") as output:
        # In a session of its own: Ctrl-C reaches this program alone, which then stops its cells.
        return subprocess.Popen(line, shell=True, stdout=output, stderr=subprocess.STDOUT,
                                env=cli.environment_of_one(OMP_NUM_THREADS=threads),
                                start_new_session=True, pass_fds=[lock.fileno()])
