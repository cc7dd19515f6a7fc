"""Many people's comparisons as one: each ran the same grid with seeds of their own, and all their students make one report.

    python compare.py --preset demo --first-seed 10 --out runs/class/ann         ... --first-seed 20 --out runs/class/ben, and so on
    python compare.py --collect runs/class/ann runs/class/ben --out runs/class-report

Of each student only run.json and glue.json are read, so a folder may be handed in without its weights. Scores may come from different machines:
what must be equal is what the comparison is about.
"""
import re
import shlex
from pathlib import Path

from plumbing import cli, disk, gluejson, options
from plumbing.cli import UserError

import budget
import distill
import glue
from measure.scores import results_of as results_of_cells
from reporting import report
from reporting.cells import Cell, cell_of, tasks_of

NAME = re.compile(r"(?P<strategy>[a-z0-9-]+)-(?P<flops>[\d.e]+)-(?P<unique>all|[\d.e]+)-seed(?P<seed>\d+)(?:-lr(?P<lr>[\d.e-]+))?")
EQUAL = ("model", "teacher_model", "teacher_flops", "data", "glue_data", "glue_grid", "tasks", "glue_seeds", "lr", "lr_grid", "train_options", "distil_options")


def students(folder):
    """(settings of the comparison in `folder`, {Cell: outcome} of its finished students). Raises UserError where it is no comparison."""
    folder = Path(folder)
    path = folder / "compare.json"
    if not path.exists():
        raise UserError(f"--collect {folder} is no comparison's folder: it has no compare.json")
    fixed, found = disk.read_json(path), {}
    lost = [key for key in EQUAL if key not in fixed]
    if lost:
        raise UserError(f"{path} does not say {lost[0]}: it is of another version; the comparison's own command writes it anew in another --out")
    if fixed["lr_grid"] != "None":
        raise UserError(f"{folder} chose its rates with --lr-grid, on a seed of its own: comparisons that are put together need one rate, --lr")
    for cell in sorted((folder / "cells").glob("*")):
        match = NAME.fullmatch(cell.name)
        if match is None or not (cell / "glue.json").exists() or not (cell / "run.json").exists():
            continue
        record, kept = disk.read_json(cell / "run.json"), gluejson.read(cell / "glue.json")
        settings = record.get("settings", {})
        key = Cell(match["strategy"], cli.number(match["flops"]), None if match["unique"] == "all" else cli.number(match["unique"]), int(match["seed"]),
                   float(match["lr"]) if match["lr"] else None, cell, ())
        if [settings.get(name) for name in ("strategy", "flops_budget", "unique_tokens", "seed")] != [key.strategy, key.flops, key.unique_tokens, key.seed]:
            raise UserError(f"{cell} is not what its name says: it was edited, or renamed")
        if record.get("finished"):
            found[key] = {"record": record, "kept": kept}
    return fixed, found


def results_of(cell, kept, args):
    """{task: summary} from the fine-tunings that the comparison asked for, on whatever machine they ran; None while one of them is missing."""
    scoring = options.glue(cell_of(args, "", *cell[:5]).commands[1][1:])
    asked = [(task, {key: value for key, value in settings.items() if key not in ("model_sha256", "data", "dtype", "device")})
             for task, settings in glue.cells_of(scoring, tasks_of(args), args.model.h, "", "", "")]
    return results_of_cells(tasks_of(args), [(task, gluejson.find(kept, one)) for task, one in asked])


def write(args):
    """report.md, results.csv and figures of all comparisons in --collect, into --out."""
    args.out = Path(args.out)
    if (args.out / "compare.json").exists():
        raise UserError(f"--out {args.out} is a comparison of its own, with a report of its own: choose another folder")
    first, outcomes, owner, skipped, teachers = None, {}, {}, [], set()
    for folder in args.collect:
        fixed, found = students(folder)
        first = first or fixed
        different = [key for key in EQUAL if fixed.get(key) != first.get(key)]
        if different:
            raise UserError(f"{folder} holds another comparison than {args.collect[0]}: "
                            f"{different[0]} is {fixed.get(different[0])} here and {first.get(different[0])} there")
        for key in EQUAL:
            setattr(args, key, fixed[key])
        teachers.add(None if fixed.get("teacher") in (None, "None") else fixed["teacher"])
        args.model, args.teacher_model, args.teacher_flops = budget.size(args.model), budget.size(args.teacher_model), int(args.teacher_flops)
        for cell, outcome in found.items():
            same = cell[:5]
            if same in owner:
                raise UserError(f"{cell.folder} and {owner[same]} are the same student: give each comparison a --first-seed of its own")
            results = results_of(cell, outcome["kept"], args)
            if results is None:
                skipped.append(str(cell.folder))
                continue
            owner[same] = cell.folder
            outcomes[cell] = {"record": outcome["record"], "results": results}
    for folder in skipped:
        cli.say(f"not scored on all tasks, left out: {folder}")
    if not outcomes:
        raise UserError("--collect: no student of these comparisons is finished and scored")
    strategies = {cell.strategy for cell in outcomes}
    if "scratch" not in strategies:
        raise UserError("--collect: no student from scratch is among them, and there is nothing to compare with")
    args.strategies = [name for name in distill.STRATEGIES if name in strategies]
    args.budgets = sorted({cell.flops for cell in outcomes})
    args.unique_tokens = sorted({cell.unique_tokens for cell in outcomes}, key=lambda n: -1 if n is None else n)
    args.seed_numbers = sorted({cell.seed for cell in outcomes})
    args.seeds, args.lr, args.lr_grid = len(args.seed_numbers), None, None
    args.teacher = None if teachers == {None} else ", ".join(sorted(name or "one of each comparison's own" for name in teachers))
    args.out.mkdir(parents=True, exist_ok=True)
    cli.say(f"{len(outcomes)} students of {len(args.collect)} comparisons, {args.seeds} seeds")
    command = ["python", "compare.py", "--collect", *args.collect, "--out", str(args.out)]
    report.write(args, None, list(outcomes), outcomes, [], {}, shlex.join(command))
