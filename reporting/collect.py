"""Many people's comparisons as one. Each person runs the same grid with seeds of their own, and one
report pools all their students.

    python compare.py --preset demo --first-seed 10 --out runs/class/ann
    python compare.py --preset demo --first-seed 20 --out runs/class/ben
    python compare.py --collect runs/class/ann runs/class/ben --out runs/class-report

Of each student run.json, glue.json and log.jsonl are read, and no weights. So what is handed in may
be the students.zip that lies in the folder (handin.py). Scores may come from different machines.
What must be equal is what the comparison is about: EQUAL.
"""
import re
import shlex
from pathlib import Path

from files import disk
from plumbing import cli, gluejson
from plumbing.cli import UserError

import budget
import glue
from measure import scores
from reporting import handin, options, report
from reporting.cells import (
    Cell,
    cell_of,
    kept_settings,
    scores_of_teacher,
    tasks_of,
)

# The name of a cell's folder, as cells.cell_name writes it.
CELL_NAME = re.compile(r"(?P<strategy>[a-z0-9-]+)-(?P<flops>[\d.e]+)-(?P<unique>all|[\d.e]+)"
                       r"-seed(?P<seed>\d+)(?:-lr(?P<lr>[\d.e-]+))?")
EQUAL = ("model", "teacher_model", "teacher_flops", "data", "glue_data", "glue_grid", "tasks",
         "glue_seeds", "lr", "lr_grid", "train_options", "distil_options", "glue_options")
# What a fine-tuning says of where it ran, and not of what was asked for.
PLACE = ("model_sha256", "dtype", "device")


# --------------------------------------------------------------------------------------------------
# One comparison's folder


def settings_of(folder):
    """The settings of the comparison in a folder. Raises UserError where it is no comparison, or
    one that cannot be pooled."""
    path = folder / "compare.json"
    if not path.exists():
        raise UserError(f"--collect {folder} is no comparison's folder: it has no compare.json")
    settings = kept_settings(path)
    missing = [key for key in EQUAL if key not in settings]
    if missing:
        raise UserError(f"{path} does not say {missing[0]}: it is of another version; the "
                        "comparison's own command writes it anew in another --out")
    if settings["lr_grid"] != "None":
        raise UserError(f"{folder} chose its rates with --lr-grid, on a seed of its own: "
                        "comparisons that are put together need one rate, --lr")
    return settings


def students_of(folder):
    """{Cell: (run.json, glue.json)} of a comparison's finished students. Raises UserError where a
    cell is not what its name says."""
    students = {}
    for path in sorted((folder / "cells").glob("*")):
        match = CELL_NAME.fullmatch(path.name)
        has_files = (path / "glue.json").exists() and (path / "run.json").exists()
        if match is None or not has_files:
            continue
        record, kept = disk.read_json(path / "run.json"), gluejson.read(path / "glue.json")
        cell = cell_from(match, path)
        settings = record.get("settings", {})
        keys = ("strategy", "flops_budget", "unique_tokens", "seed")
        named = (cell.strategy.removesuffix(options.COPIED), *cell[1:4])
        if tuple(settings.get(key) for key in keys) != named:
            raise UserError(f"{path} is not what its name says: it was edited, or renamed")
        if record.get("finished"):
            students[cell] = record, kept
    return students


def cell_from(match, folder):
    """The Cell that a folder's name describes. It has no commands."""
    unique = None if match["unique"] == "all" else cli.number(match["unique"])
    lr = float(match["lr"]) if match["lr"] else None
    return Cell(match["strategy"], cli.number(match["flops"]), unique, int(match["seed"]), lr,
                folder, ())


def results_of(command, h, kept, args):
    """{task: summary} from the fine-tunings that the comparison asked for, on whatever machine they
    ran. None while one of them is missing. command: the line of glue.py that makes them; h: the
    model's width."""
    scoring = glue.read_settings(command[1:])
    tasks, fine_tunings = tasks_of(args), []
    for task, settings in glue.cells_of(scoring, tasks, h, "", "", ""):
        asked = {key: value for key, value in settings.items() if key not in PLACE}
        fine_tunings.append((task, gluejson.find(kept, asked)))
    return scores.results_of(tasks, fine_tunings)


# --------------------------------------------------------------------------------------------------
# All of them


def write(args):
    """Writes report.md, results.csv, students.zip and the figures of all comparisons in --collect
    into --out."""
    if (args.out / "compare.json").exists():
        raise UserError(f"--out {args.out} is a comparison of its own, with a report of its own: "
                        "choose another folder")
    if (args.out / handin.NAME).resolve() in [Path(path).resolve() for path in args.collect]:
        raise UserError(f"--out {args.out} would write over {args.out / handin.NAME}, which is "
                        "collected: choose another folder")
    with handin.opened(args.collect) as folders:
        write_pooled(args, folders)


def write_pooled(args, folders):
    """The report of the comparisons in these folders, whose names are those in --collect."""
    take_settings(args, folders)
    outcomes, unscored = pool(args, folders)
    for folder in unscored:
        words = f"not scored on all tasks, left out: {folder}"
        cli.say(handin.renamed(words, args.collect, folders))
    check_pool(outcomes)
    describe(args, outcomes)
    disk.make_folder(args.out)
    cli.say(f"{cli.counted(len(outcomes), 'student')} of "
            f"{cli.counted(len(args.collect), 'comparison')}, {cli.counted(args.seeds, 'seed')}")
    command = ["python", "compare.py", "--collect", *args.collect, "--out", str(args.out)]
    report.write(args, None, list(outcomes), outcomes, [], {}, shlex.join(command),
                 teacher=scored_teacher(args, folders))


def take_settings(args, folders):
    """Makes the comparisons' common settings those of `args`. Raises UserError where two of them
    are about something else."""
    settings = [settings_of(folder) for folder in folders]
    for name, own in zip(args.collect, settings):
        check_equal(args.collect[0], settings[0], name, own)
    adopt(args, settings[0])
    teachers = {own.get("teacher", "None") for own in settings}
    args.teacher = teacher_words({None if name == "None" else name for name in teachers})
    args.settings = {**settings[0], "teacher": str(args.teacher)}


def pool(args, folders):
    """({Cell: outcome} of all the comparisons' students, folders of those that are not scored on
    all tasks). Raises UserError where two of them are the same student."""
    outcomes, owners, unscored = {}, {}, []
    for folder in folders:
        for cell, (record, kept) in students_of(folder).items():
            student = cell[:5]  # all but its place
            if student in owners:
                raise UserError(f"{cell.folder} and {owners[student]} are the same student: give "
                                "each comparison a --first-seed of its own")
            command = cell_of(args, "", *student).commands[1]
            results = results_of(command, args.model.h, kept, args)
            if results is None:
                unscored.append(cell.folder)
                continue
            owners[student] = cell.folder
            outcomes[cell] = {"record": record, "results": results}
    return outcomes, unscored


def scored_teacher(args, folders):
    """The teacher's outcome, as cells.outcome gives it, and the folder of its scores. None where no
    comparison scored its teacher, or several scored different ones: a figure has one line for
    it."""
    found, command = {}, scores_of_teacher(args, "teacher").commands[0]
    for folder in folders:
        scores_folder = folder / handin.SCORES
        records = [path for path in (scores_folder / "run.json", folder / "teacher" / "run.json")
                   if path.exists()]
        kept = gluejson.read(scores_folder / "glue.json")
        results = results_of(command, args.teacher_model.h, kept, args)
        if results:
            record = disk.read_json(records[0]) if records else {}
            score = scores.score_of(results)
            found[score] = {"record": record, "results": results, "folder": scores_folder}
    return found.popitem()[1] if len(found) == 1 else None


def check_equal(first_folder, first, folder, settings):
    """Raises UserError where a comparison is about something else than the first one."""
    for key in EQUAL:
        if settings[key] != first[key]:
            raise UserError(f"{folder} holds another comparison than {first_folder}: {key} is "
                            f"{settings[key]} here and {first[key]} there")


def adopt(args, settings):
    """Makes a comparison's settings, which are texts, those of `args`."""
    for key in EQUAL:
        setattr(args, key, settings[key])
    args.model, args.teacher_model = budget.size(args.model), budget.size(args.teacher_model)
    args.teacher_flops, args.glue_seeds = int(args.teacher_flops), int(args.glue_seeds)


def teacher_words(teachers):
    """The teachers' names in one line. A comparison that trained its own has None; where all did,
    so has the report."""
    if teachers == {None}:
        return None
    return ", ".join(sorted(name or "one of each comparison's own" for name in teachers))


def check_pool(outcomes):
    """Raises UserError where there is nothing to compare."""
    if not outcomes:
        raise UserError("--collect: no student of these comparisons is finished and scored")
    if not any(cell.strategy == "scratch" for cell in outcomes):
        raise UserError("--collect: no student from scratch is among them, and there is nothing to "
                        "compare with")


def describe(args, outcomes):
    """Makes the grid of `args` the one that the students fill."""
    strategies = {cell.strategy for cell in outcomes}
    args.strategies = [name for name in options.STUDENTS if name in strategies]
    args.budgets = sorted({cell.flops for cell in outcomes})
    amounts = {cell.unique_tokens for cell in outcomes}
    args.unique_tokens = [None] if None in amounts else []  # unlimited data stands first
    args.unique_tokens += sorted(amounts - {None})
    args.seed_numbers = sorted({cell.seed for cell in outcomes})
    args.seeds, args.lr_grid = len(args.seed_numbers), None
