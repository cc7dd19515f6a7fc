"""The paper's experiment: at equal compute, from scratch or distilled, with unlimited and with
repeated data?

    python compare.py                    five to ten minutes: a teacher, 16 students, their scores
    python compare.py --preset stories   the full study on the embedded world
    python compare.py --preset stories --list | tail -n +2 | parallel -j 8     after the first line

The experiment is a grid: strategies x budgets x data settings x seeds. Each cell is one student,
one line of shell: a `train.py` and a `glue.py` (reporting/cells.py). All but the strategy is equal,
and the students of one seed begin with the same weights and see the same blocks and masks, so
their differences to scratch are paired by seed (measure/statistics.py, reporting/report.py).

This program makes the lines, runs those that are not finished, some at a time, and reports. What is
finished is skipped: a killed comparison continues. The first line of --list trains the teacher, and
the others wait for it.
"""
import sys

from plumbing import before_torch, cli, disk, options  # noqa: F401
from plumbing.cli import UserError

import torch

import budget
import distill
from reporting import cells, collect, report
from reporting.words import spell

# What a comparison is about. A folder holds one.
FIXED = ("model", "teacher", "teacher_model", "teacher_flops", "data", "glue_data", "glue_grid",
         "tasks", "glue_seeds", "lr", "lr_grid", "train_options", "distil_options")
FILES = ("teacher", "cells", "logs", "lock")  # of a comparison whose cells ran elsewhere


def price(args, grid):
    """The grid's cost in FLOPs and in time, as text."""
    total = sum(cell.flops for cell in grid)
    what = f"the teacher {args.teacher} exists"
    if not args.teacher:
        total += args.teacher_flops
        what = f"{cli.flops(args.teacher_flops)} of them the teacher's"
    lines = [f"{len(grid)} students: {len(args.strategies)} strategies x {len(args.budgets)} "
             f"budgets x {len(args.unique_tokens)} data settings x {args.seeds} seeds",
             f"{cli.flops(total)} FLOPs of pretraining{';' if args.teacher else ','} {what}"]
    for rate, where in ((1e11, "two laptop cores"), (3e14, "one H100")):
        time = cli.duration(total / rate)
        lines += [f"at {cli.flops(rate)} FLOP/s ({where}): {time}, and fine-tuning"]
    return "\n".join(lines)


def check_pairs(args, grid):
    """Raises UserError where a strategy does not fit the pair, or a budget is below one step: now,
    and not after an hour."""
    for cell in grid[:len(args.strategies)]:
        training = options.train(cell.commands[0][1:])
        lesson = distill.lesson(cell.strategy, args.model, args.teacher_model)
        step = budget.step_flops(args.model, 200, training.seq_len, training.batch_size, lesson,
                                 args.teacher_model)
        if cell.flops < step:
            raise UserError(f"--budgets {spell(cell.flops)} is below one step of {cell.strategy}, "
                            f"which costs {cli.flops(step)} at least: raise it")


def list_cells(args, teacher_cell, grid):
    """Prints the cells as lines of shell, the teacher's first."""
    if args.lr_grid:
        raise UserError("--list and --lr-grid: which cells there are depends on the rates that are "
                        "chosen; run the choice first, and give --lr")
    for cell in [*filter(None, [teacher_cell]), *grid]:
        time = cli.duration(cell.flops / 1e11)
        cli.say(f"{cell.line}  # {cli.flops(cell.flops)} FLOPs, about {time} on two cores")


def check_folder(args, path, fixed):
    """Raises UserError where --out holds something else, or another comparison."""
    if path.exists():
        old = disk.read_json(path)
        different = [f"{key} was {old.get(key)} and is now {value}"
                     for key, value in fixed.items() if old.get(key) != value]
        if old != fixed:
            raise UserError(f"{args.out} holds another comparison ({'; '.join(different)}): choose "
                            "another --out")
        return
    leftover = disk.leftovers(r"compare\.json")
    names = [entry.name for entry in args.out.iterdir()]
    if not all(name in FILES or leftover.fullmatch(name) for name in names):
        raise UserError(f"{args.out} holds other files, and no comparison: choose another --out")


def run(args, teacher, teacher_cell):
    """Runs what is missing, and reports. Returns {cell's name: last line} of those that failed."""
    fixed = {key: str(getattr(args, key)) for key in FIXED}
    path, failed = args.out / "compare.json", {}
    check_folder(args, path, fixed)
    disk.write_json(path, fixed)
    if teacher_cell:
        jobs, args.jobs = args.jobs, 1  # one process with all threads: everything waits for it
        failed = cells.run([teacher_cell], args, "teacher")
        args.jobs = jobs
        if failed:
            raise UserError("the teacher failed, and there is nothing to learn from: "
                            f"{failed['teacher']}")
    weights = disk.fetch(teacher, ["model.safetensors"]) / "model.safetensors"
    args.teacher_sha256 = disk.file_sha256(weights)
    rates, tried = cells.chosen_rates(args, teacher, failed)
    grid = cells.grid(args, teacher, rates)
    failed |= cells.run(grid, args, "students")
    outcomes = {cell: found for cell in grid if (found := cells.outcome(cell, args))}
    report.write(args, teacher_cell, grid, outcomes, tried, failed)
    return failed


def main():
    args = options.compare()
    if args.collect:
        return collect.write(args)
    if args.jobs is None:
        args.jobs = 1 if torch.cuda.is_available() else cells.cores()
    teacher, teacher_cell = cells.teacher_of(args)
    grid = cells.grid(args, teacher, dict.fromkeys(args.strategies, args.lr))
    check_pairs(args, grid)
    if args.list:
        return list_cells(args, teacher_cell, grid)
    cli.say(price(args, grid))
    if args.dry_run:
        return
    cells.tasks_of(args)  # a task that is not there is said before anything runs
    args.out.mkdir(parents=True, exist_ok=True)
    with disk.locked(args.out / "lock", "compares in the same folder") as args.lock:
        failed = run(args, teacher, teacher_cell)
    if failed:
        line = f"{len(failed)} of {len(grid)} cells failed; the same command tries them again"
        cli.say(line, lambda words: print(words, file=sys.stderr))
        sys.exit(1)


if __name__ == "__main__":
    cli.program(main)
