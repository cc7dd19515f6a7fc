"""One report from many comparisons: each person of a class runs one, with seeds of its own.

    python compare.py --first-seed 0  --out runs/class/ann
    python compare.py --first-seed 10 --out runs/class/ben
    python compare.py --collect runs/class/* --out runs/class-report

Of each student run.json and glue.json are read: the students.zip that lies in a folder is enough.
Scores may come from different machines. All of presets.FIXED but the teachers' names must be equal.
"""
import contextlib
from dataclasses import replace
from pathlib import Path

from files import disk
from program import cli
from program.cli import UserError
from running.options import COPIED

from measure import scores
from reporting import cells, handin
from reporting.presets import FIXED, STUDENTS, rates_of, read_texts

EQUAL = [name for name in FIXED if name not in ("teacher", "head_teacher")]


@contextlib.contextmanager
def gathered(asked):
    """(the settings of all comparisons in --collect as one, their students' outcomes, the teacher's
    outcome), for as long as what was unpacked is there. A line names each student that is left out.
    Raises UserError where they do not belong together."""
    collected = [Path(path).resolve() for path in asked.collect]
    if (asked.out / "compare.json").exists() or (asked.out / handin.NAME).resolve() in collected:
        raise UserError(f"--out {asked.out} holds a report, which would be written over: choose "
                        "another folder")
    with handin.opened(asked.collect) as folders:
        study, outcomes = common_settings(asked, folders), {}
        for path in (path for folder in folders for path in sorted(folder.glob("cells/*/"))):
            why = add_student(outcomes, study, path)
            if why:
                cli.say(handin.renamed(f"left out: {path}: {why}", asked.collect, folders))
        study = filled(study, outcomes)
        disk.make_folder(asked.out)
        cli.say(f"{cli.counted(len(outcomes), 'student')} of "
                f"{cli.counted(len(folders), 'comparison')}, "
                f"{cli.counted(len(study.seed_numbers), 'seed')}")
        yield study, outcomes, scored_teacher(study, folders)


def common_settings(asked, folders):
    """The settings that the comparisons in these folders share: they are about one thing."""
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
    names = {own["teacher"] for own in settings}
    if names != {None}:  # a comparison that trained its own has None
        names = {", ".join(sorted(name or "one of each comparison's own" for name in names))}
    study = replace(asked, **{**settings[0], "teacher": names.pop()})
    return replace(study, rates=rates_of(study, STUDENTS))


def add_student(outcomes, study, folder):
    """Adds the outcome of the student in a folder, or returns why it is left out. run.json says
    which student it is. Raises UserError where it is there already, or is of no such comparison."""
    record = disk.optional_json(folder / "run.json")
    if not record.get("finished"):
        return "it is not finished"
    settings = record.get("settings", {})
    if not {"strategy", "flops_budget", "unique_tokens", "seed"} <= settings.keys():
        return "its run.json is damaged"
    strategy = settings["strategy"] + COPIED * (settings.get("init") == "teacher")
    if strategy not in STUDENTS:
        return f"there is no strategy {strategy} here"
    cell = cells.student(study, strategy, settings["flops_budget"], settings["unique_tokens"],
                         settings["seed"])._replace(folder=folder, teacher=None)
    cells.check_record(cell, study, record)
    results = cells.results_of(cell, study)
    if results is None:
        return "it is not scored on all tasks"
    for other in outcomes:
        if other[:4] == cell[:4]:  # its strategy, budget, data and seed
            raise UserError(f"{folder} and {other.folder} are the same student: give each "
                            "comparison a --first-seed of its own")
    outcomes[cell] = {"record": record, "results": results}


def filled(study, outcomes):
    """The settings with the grid that the students fill."""
    strategies = {cell.strategy for cell in outcomes}
    if "scratch" not in strategies:
        raise UserError("--collect: no student from scratch is there that is finished and scored")
    # Unlimited data, which is None, stands first.
    amounts = sorted({cell.unique_tokens for cell in outcomes}, key=lambda unique: unique or 0)
    return replace(
        study, strategies=tuple(name for name in STUDENTS if name in strategies),
        budgets=tuple(sorted({cell.flops for cell in outcomes})), unique_tokens=tuple(amounts),
        seed_numbers=tuple(sorted({cell.seed for cell in outcomes})))


def scored_teacher(study, folders):
    """The teacher's outcome, and the folder of its scores. None where no comparison scored its
    teacher, or several scored different ones: a figure has one line for it."""
    found = {}
    for folder in folders:
        cell = cells.scores_of_teacher(study, folder)
        results = cells.results_of(cell, study)
        if results:
            record = (disk.optional_json(cell.folder / "run.json")
                      or disk.optional_json(folder / "teacher" / "run.json"))
            found[scores.score_of(results)] = {"record": record, "results": results,
                                               "folder": cell.folder}
    return found.popitem()[1] if len(found) == 1 else None
