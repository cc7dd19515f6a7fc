"""The paper's experiment: at equal compute, from scratch or distilled, with unlimited and with
repeated data?

    python compare.py                    about ten minutes: a teacher, 12 students, unlimited data
    python compare.py --preset stories   the full study on the embedded world
    python compare.py --preset stories --list       its lines of shell, for many machines

The experiment is a grid: strategies x budgets x data settings x seeds. Each cell is one student,
one line of shell: a `train.py` and a `glue.py` (reporting/cells.py). All but the strategy is equal,
and the students of one seed begin with the same weights and see the same blocks and masks, so
their differences to scratch are paired by seed (measure/statistics.py, reporting/report.py).

This program makes the lines, runs those that are not finished, some at a time, and reports. What is
finished is skipped: a killed comparison continues. The first line of --list trains the teacher, and
the others wait for it.
"""
import sys

from files import disk
from plumbing import cli, limits, weights
from plumbing.cli import UserError
from plumbing.teacher import fetch
from program import options

import torch

from reporting import cells, collect, plan, preflight, report
from reporting import options as comparison


def run(args, teacher, teacher_cell):
    """Runs what is missing, and reports. Returns {cell's name: last line} of those that failed."""
    cells.claim_folder(args)
    failed = {}
    if teacher_cell:
        jobs, args.jobs = args.jobs, 1  # one process with all threads: everything waits for it
        failed = cells.run([teacher_cell], args, "teacher")
        args.jobs = jobs
        if failed:
            raise UserError("the teacher failed, and there is nothing to learn from: "
                            f"{failed['teacher']}")
    args.teacher_folder = fetch(teacher)
    args.teacher_sha256 = weights.sha256(args.teacher_folder)
    if args.head_teacher:
        args.head_sha256 = weights.sha256(fetch(args.head_teacher))
    rates, tried = cells.chosen_rates(args, teacher, failed)
    grid = cells.grid(args, teacher, rates)
    scored = cells.scores_of_teacher(args, teacher)
    failed |= cells.run([scored, *grid], args, "students")
    outcomes = {cell: found for cell in grid if (found := cells.outcome(cell, args))}
    cells.check_texts(outcomes, args)
    report.write(args, teacher_cell, grid, outcomes, tried, failed,
                 teacher=cells.outcome(scored, args))
    return failed


def main():
    args = comparison.compare()
    if args.collect:
        return collect.write(args)
    if args.jobs is None:
        args.jobs = 1 if torch.cuda.is_available() else limits.cores()
    teacher, teacher_cell = cells.teacher_of(args)
    grid = cells.grid(args, teacher, args.rates)
    preflight.check_pairs(args, grid)
    if args.list:
        return cells.print_list(args, teacher_cell, grid)
    options.note_stories(args.data)
    cli.say(plan.describe(args, grid))
    if args.dry_run:
        return
    disk.check_writable(args.out)
    cells.tasks_of(args)  # a task that is not there is said before anything runs
    preflight.check_inputs(args, grid)
    disk.make_folder(args.out)
    cells.check_folder(args)
    with disk.locked(args.out / "lock", "compares in the same folder") as args.lock:
        failed = run(args, teacher, teacher_cell)
    if failed:
        line = f"cells that failed: {len(failed)}; the same command tries them again"
        cli.say(line, lambda words: print(words, file=sys.stderr))
        sys.exit(1)


if __name__ == "__main__":
    cli.program(main)
