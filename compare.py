"""The paper's experiment: at equal compute, from scratch or distilled, with unlimited and with
repeated data?

    python compare.py                    about ten minutes: a teacher, 12 students, unlimited data
    python compare.py --preset stories   the full study on the embedded world
    python compare.py --preset stories --list       its lines of shell, for many machines

The experiment is a grid: strategies x budgets x data settings x seeds. Each cell is one student,
one line of shell: a `train.py` and a `glue.py` (reporting/cells.py). All but the strategy is equal,
and the students of one seed begin with the same weights and see the same blocks and masks, so
their differences to scratch are paired by seed (`pairs_of`, and `judge` for the verdicts).

This program makes the lines, runs those that are not finished, some at a time, and reports. What is
finished is skipped: a killed comparison continues. The first line of --list trains the teacher, and
the others wait for it.
"""
import math
import sys
from typing import NamedTuple, Optional

from plumbing import cli, disk, limits, weights
from plumbing.cli import UserError
from plumbing.teacher import fetch
from program import options
from program.options import COPIED

import pandas as pd
import torch

from measure.scores import score_of
from measure.statistics import LEVEL, MARGIN, compute_multiplier, holm, interval, p_values
from reporting import cells, collect, handin, plan, preflight, report
from reporting import options as comparison

# --------------------------------------------------------------------------------------------------
# What came out: a table of students, and their differences to scratch, in pairs of one seed

SETTING = ["data"]  # what students share that are compared with each other, beside the budget
PAIR = ["seed", *SETTING, "flops"]  # what the two students of a pair share
KIND = [*SETTING, "flops", "strategy"]  # students of a kind differ in their seed alone
ONLY_COPIED = "scratch" + COPIED  # layers of the teacher are all that it gets of it


class Difference(NamedTuple):
    """What students score more than their partners, in points, as a mean over pairs."""
    pairs: int
    mean: float
    half: Optional[float]  # the width of the 95% interval, halved; None for a single pair
    p: Optional[float]     # corrected for all that are judged together
    verdict: str           # ahead, behind, equal (within MARGIN), open; "" for a single pair


def findings(study, outcomes, teacher=None):
    """What a comparison found. outcomes, teacher: as in report.Found, with at least one student."""
    table = students(study, outcomes)
    rows = kinds(table)
    return report.Found(outcomes, teacher, table, rows, pooled(table, rows), controls(table))


def students(study, outcomes):
    """The table of all students, in the order of the grid: what each is, its score in points, its
    loss (NaN without an MLM head), and what else a report says of it."""
    rows = []
    for cell in sorted(outcomes, key=lambda cell: (
            study.unique_tokens.index(cell.unique_tokens), cell.flops,
            study.strategies.index(cell.strategy), cell.seed)):
        record, results = outcomes[cell]["record"], outcomes[cell]["results"]
        rows.append({
            "data": cell.unique_tokens or math.inf, "flops": cell.flops, "strategy": cell.strategy,
            "seed": cell.seed, "score": 100 * score_of(results),
            "val_loss": record["val_loss"] or math.nan, **report.more_of(record, results)})
    return pd.DataFrame(rows)


def pairs_of(table, control="scratch", value="score"):
    """The students that have a partner, which is the one of `control` with the same seed, data and
    budget: it saw the same blocks and masks, and began with the same weights."""
    partners = table.loc[table["strategy"] == control, [*PAIR, value]]
    partners = partners.rename(columns={value: "partner"})
    pairs = table[table["strategy"] != control].merge(partners, on=PAIR)
    # difference = score of the student - score of its partner
    return pairs.assign(difference=pairs[value] - pairs["partner"]).dropna(subset="difference")


def judge(samples):
    """{what: Difference} of {what: differences, one for each pair}, but for those without a pair.
    All of them are one family: a verdict holds after correction for their number."""
    samples = {what: sample for what, sample in samples.items() if sample}
    # t = mean / (s / sqrt(n)): p is the probability of such a t where nothing differs
    tests = [p_values(sample) for sample in samples.values()]
    corrected = zip(holm([p for p, _ in tests]), holm([equal_p for _, equal_p in tests]))
    found = {}
    for (what, sample), (p, equal_p) in zip(samples.items(), corrected):
        mean, half = interval(sample)  # mean +- t_975(n - 1) s / sqrt(n)
        found[what] = Difference(len(sample), mean, half, p, verdict(mean, p, equal_p))
    return found


def verdict(mean, p, equal_p):
    """What a mean difference says. p, equal_p: from `p_values`, corrected. Students are equal where
    a difference as large as MARGIN is ruled out: then a null result is shown, not only missed."""
    if p is None:
        return ""
    if p < LEVEL:
        return "ahead" if mean > 0 else "behind"
    return "equal" if equal_p < LEVEL else "open"


def judge_groups(pairs, columns):
    """{values of the columns: Difference} of the pairs that agree in these columns."""
    groups = pairs.groupby(columns, sort=False)["difference"]
    return judge({key: differences.tolist() for key, differences in groups})


def kinds(table):
    """A row for each kind of students: means over its "n" students, "half" of their score's
    interval, how many have each skill, their Difference to scratch, and the compute multiplier."""
    groups, differences = table.groupby(KIND, sort=False), judge_groups(pairs_of(table), KIND)
    rows = groups.mean(numeric_only=True).reset_index().to_dict("records")
    for row, (kind, own) in zip(rows, groups):
        row |= own.filter(like="skill ").sum().to_dict()
        row |= {"n": len(own), "half": interval(own["score"].tolist())[1],
                "difference": differences.get(kind)}
    return [row | {"multiplier": multiplier(row, rows)} for row in rows]


def alike(row, rows, columns):
    """Those of the rows that have the same values in these columns as `row`."""
    return [other for other in rows if all(other[key] == row[key] for key in columns)]


def multiplier(row, rows):
    """How many times the budget scratch needs for the same score, read off its own curve. None
    where there is no pair, or no curve."""
    curve = {other["flops"]: other["score"] for other in alike(row, rows, SETTING)
             if other["strategy"] == "scratch"}
    if row["difference"] is None or len(curve) == 1:
        return None
    # Scratch's mean plus the difference: the row's own seeds may be other ones than scratch's.
    score = curve[row["flops"]] + row["difference"].mean
    return compute_multiplier(list(curve.items()), row["flops"], score)


def pooled(table, rows):
    """A row for each data setting and strategy: its Difference to scratch as a mean over its
    budgets, whose rows are the "parts"; its "change" from the smallest of them to the largest; and
    whether it "depends" on the budget, for sure and by MARGIN or more: then the mean is an answer
    for none of them."""
    means, changes, columns = {}, {}, [*SETTING, "strategy"]
    for key, own in pairs_of(table).groupby(columns, sort=False):
        by_budget = own.pivot(index="seed", columns="flops", values="difference")
        means[key] = by_budget.dropna().mean(axis=1).tolist()  # of the seeds that have all
        if means[key] and by_budget.shape[1] > 1:
            ends = by_budget.iloc[:, [0, -1]].dropna()
            changes[key] = (ends.iloc[:, 1] - ends.iloc[:, 0]).tolist()
    means, changes, found = judge(means), judge(changes), []
    for key, mean in means.items():
        row, change = dict(zip(columns, key)), changes.get(key)
        is_sure = change is not None and change.verdict in ("ahead", "behind")
        found.append({**row, "difference": mean, "change": change,
                      "depends": is_sure and abs(change.mean) >= MARGIN,
                      "parts": [part for part in alike(row, rows, columns) if part["difference"]]})
    return found


def controls(table):
    """A row for each kind of students beside what it should beat: KD beside KD whose loss is
    divided by the vocabulary's size, and all beside copied layers alone, which cost nothing."""
    kd = pairs_of(table[table["strategy"].isin(["kd", "kd-released"])], "kd-released")
    others = pairs_of(table[table["strategy"] != "scratch"], ONLY_COPIED)
    pairs = pd.concat([kd.assign(control="kd-released"), others.assign(control=ONLY_COPIED)])
    columns = [*KIND, "control"]
    return [dict(zip(columns, key), difference=found)
            for key, found in judge_groups(pairs, columns).items()]


# --------------------------------------------------------------------------------------------------
# The program


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
    args.rates, _ = cells.chosen_rates(args, teacher, failed)
    grid = cells.grid(args, teacher, args.rates)
    scored = cells.scores_of_teacher(args, teacher)
    failed |= cells.run([scored, *grid], args, "students")
    outcomes = {cell: found for cell in grid if (found := cells.outcome(cell, args))}
    cells.check_texts(outcomes, args)
    disk.write_file(args.out / "cells.txt", plan.cells_text(teacher_cell, grid))
    tell(args, outcomes, cells.outcome(scored, args), plan.command_of(args), len(grid), failed)
    return failed


def tell(study, outcomes, teacher, command, planned, failed=()):
    """Writes the report and students.zip. command, planned, failed: as in report.write_report."""
    if not outcomes:
        return cli.say("no cell is finished: there is nothing to report")
    found = findings(study, outcomes, teacher)
    report.write_report(study, found, command, planned, failed)
    handin.hand_in(study, outcomes, teacher)


def collect_into(args):
    """Writes one report of all comparisons in --collect into --out."""
    with collect.gathered(args) as (outcomes, teacher, command):
        tell(args, outcomes, teacher, command, len(outcomes))


def main():
    args = comparison.compare()
    if args.collect:
        return collect_into(args)
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
