"""One report from many comparisons: each person of a class runs one, with seeds of its own.

    python compare.py --first-seed 0  --out runs/class/ann
    python compare.py --first-seed 10 --out runs/class/ben
    python compare.py --collect runs/class/* --out runs/class-report

Of each student run.json and glue.json are read, and no weights. So what is handed in may be the
students.zip that lies in the folder (handin.py). Scores may come from different machines. What must
be equal is what the comparison is about: all of presets.FIXED but the teachers' names.
"""
import contextlib
import shlex
from dataclasses import replace
from pathlib import Path

from files import disk
from program import cli
from program.cli import UserError

from measure import scores
from reporting import cells, handin
from reporting.presets import FIXED, STUDENTS, read_texts

EQUAL = [name for name in FIXED if name not in ("teacher", "head_teacher")]


@contextlib.contextmanager
def gathered(asked):
    """(the settings of all comparisons in --collect as one, their students' outcomes, the teacher's
    outcome, the line that gathers them), for as long as what was unpacked is there. A line is
    printed for each student that is left out. Raises UserError where they do not belong together.

    asked: a compare.Settings, of which only --collect and --out count."""
    if (asked.out / "compare.json").exists():
        raise UserError(f"--out {asked.out} is a comparison of its own, with a report of its own: "
                        "choose another folder")
    if (asked.out / handin.NAME).resolve() in [Path(path).resolve() for path in asked.collect]:
        raise UserError(f"--out {asked.out} would write over {asked.out / handin.NAME}, which is "
                        "collected: choose another folder")
    with handin.opened(asked.collect) as folders:
        study, outcomes = common_settings(asked, folders), {}
        for folder in folders:
            for cell, found in students_of(study, folder):
                if isinstance(found, str):
                    line = f"left out: {cell.folder}: {found}"
                    cli.say(handin.renamed(line, asked.collect, folders))
                else:
                    add_student(outcomes, cell, found)
        study = filled(study, outcomes)
        disk.make_folder(asked.out)
        cli.say(f"{cli.counted(len(outcomes), 'student')} of "
                f"{cli.counted(len(folders), 'comparison')}, "
                f"{cli.counted(len(study.seed_numbers), 'seed')}")
        command = ["python", "compare.py", "--collect", *asked.collect, "--out", str(asked.out)]
        yield study, outcomes, scored_teacher(study, folders), shlex.join(command)


def common_settings(asked, folders):
    """The settings that the comparisons in these folders share. Raises UserError where two of them
    are about something else."""
    settings = []
    for folder in folders:
        path = folder / "compare.json"
        if not path.exists():
            raise UserError(f"--collect {folder} is no comparison's folder: it has no compare.json")
        settings.append(read_texts(path, type(asked)))
        for name in EQUAL:
            if settings[-1][name] != settings[0][name]:
                raise UserError(f"{folder} holds another comparison than {folders[0]}: {name} is "
                                f"{settings[-1][name]} here and {settings[0][name]} there")
    teachers = {own["teacher"] for own in settings}
    if teachers != {None}:  # a comparison that trained its own has None
        teachers = {", ".join(sorted(name or "one of each comparison's own" for name in teachers))}
    return replace(asked, **{**settings[0], "teacher": teachers.pop()})


def students_of(study, folder):
    """Yields (Cell, its outcome) for each student in a comparison's folder, or (Cell, why it is
    left out). Raises UserError where a student is not what its name says."""
    for path in sorted(path for path in (folder / "cells").glob("*") if path.is_dir()):
        cell = cells.named(path)
        if cell is None:
            yield cells.Cell("", 0, None, 0, None, path, ()), "its name is not one of a student"
            continue
        record = disk.optional_json(path / "run.json")
        if not record.get("finished"):
            yield cell, "it is not finished"
            continue
        cells.check_record(cell, study, record)
        results = cells.results_of(
            cell._replace(commands=(cells.scoring(study, path),)), study)
        yield cell, results and {"record": record, "results": results} or (
            "it is not scored on all tasks")


def add_student(outcomes, cell, found):
    """Adds a student's outcome. Raises UserError where it is there already."""
    for other in outcomes:
        if other[:4] == cell[:4]:  # its strategy, budget, data and seed
            raise UserError(f"{cell.folder} and {other.folder} are the same student: give each "
                            "comparison a --first-seed of its own")
    outcomes[cell] = found


def filled(study, outcomes):
    """The settings with the grid that the students fill. Raises UserError where there is nothing
    to compare."""
    if not outcomes:
        raise UserError("--collect: no student of these comparisons is finished and scored")
    if not any(cell.strategy == "scratch" for cell in outcomes):
        raise UserError("--collect: no student from scratch is among them, and there is nothing to "
                        "compare with")
    rates = {cell.strategy: cell.lr for cell in outcomes}
    amounts = {cell.unique_tokens for cell in outcomes}
    return replace(
        study, strategies=tuple(name for name in STUDENTS if name in rates), rates=rates,
        budgets=tuple(sorted({cell.flops for cell in outcomes})),
        # Unlimited data, which is None, stands first.
        unique_tokens=tuple(sorted(amounts, key=lambda unique: unique or 0)),
        seed_numbers=tuple(sorted({cell.seed for cell in outcomes})))


def scored_teacher(study, folders):
    """The teacher's outcome, as cells.outcome gives it, and the folder of its scores. None where no
    comparison scored its teacher, or several scored different ones: a figure has one line for
    it."""
    found = {}
    for folder in folders:
        cell = cells.scores_of_teacher(study, folder)
        results = cells.results_of(cell, study)
        if results:
            records = [path for path in (cell.folder / "run.json", folder / "teacher" / "run.json")
                       if path.exists()]
            record = disk.read_json(records[0]) if records else {}
            found[scores.score_of(results)] = {"record": record, "results": results,
                                               "folder": cell.folder}
    return found.popitem()[1] if len(found) == 1 else None
