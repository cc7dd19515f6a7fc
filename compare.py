"""The paper's experiment: at equal compute, from scratch or distilled, with unlimited and with
repeated data?

    python compare.py                    about ten minutes: a teacher, 12 students, unlimited data
    python compare.py --preset stories   the full study on the embedded world
    python compare.py --preset stories --list       its lines of shell, for many machines
    python compare.py --collect runs/class/* --out runs/all     one report from many people

The experiment is a grid: strategies x budgets x data settings x seeds. Each cell is one student,
one line of shell: a `train.py` and a `glue.py` (reporting/cells.py). All but the strategy is equal,
and the students of one seed begin with the same weights and see the same blocks and masks, so
their differences to scratch are paired by seed (`pairs_of`, and `judge` for the verdicts). Cells
that are finished are skipped, so a killed comparison continues.
"""
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

from files import disk
from program import cli
from program.cli import UserError, whole
from program.settings import option, parsed
from running.options import COPIED, note_stories, place

import pandas as pd

import budget
import distill
import glue
from measure.scores import score_of
from measure.statistics import LEVEL, MARGIN, compute_multiplier, holm, interval, p_values
from reporting import cells, collect, handin, plan, presets, report

# ---- The settings --------------------------------------------------------------------------------

@dataclass(frozen=True)
class Settings:
    """What is asked for. presets.completed fills in each None, most of them from the preset."""
    preset: str = option("demo", "defaults of the rest", choices=list(presets.PRESETS))
    # Which students there are
    strategies: tuple = option(None, f"any of {', '.join(distill.STRATEGIES)}; kd{COPIED} begins "
                               "with the teacher's layers", presets.strategies, "A,B")
    budgets: tuple = option(None, "FLOPs of a student, like 1e12,3e12,1e13", presets.budgets, "C,C")
    unique_tokens: tuple = option(None, "distinct tokens, like inf,1e4", presets.amounts, "N,N")
    seeds: int = option(None, "students of each kind", whole(1, 1000), "n")
    first_seed: int = option(0, "the first of their seeds (default: 0)", whole(0, 2 ** 30), "n")
    model: budget.Size = option(None, "the student, like 2x128 or 2x192h12", budget.size, "LxH")
    teacher: str = option(None, "a folder or a hub id (default: one is trained)", place, "NAME")
    head_teacher: str = option(None, "one with an MLM head, for strategies like kd", place, "NAME")
    teacher_model: budget.Size = option(None, "size of a teacher to train", budget.size, "LxH")
    teacher_flops: int = option(None, "what its training costs", whole(0, 10 ** 30), "C")
    data: str = option(None, "to train on, as in train.py (default: stories)", metavar="TEXT")
    lr: str = option(None, "of all, or of each: scratch=2e-3,kd=2e-3", presets.rates, "R")
    train_options: str = option(None, "more of train.py for all: '--seq-len 64'", verbatim=True)
    distil_options: str = option("", "more for distilled ones: '--mlm-finish 0.3'", verbatim=True)
    # How they are scored
    glue_data: str = option(None, "to score on, as in glue.py (default: stories)", metavar="DATA")
    tasks: str = option(None, "as in glue.py", metavar="A,B")
    glue_grid: str = option(None, "as in glue.py", choices=list(glue.GRIDS))
    glue_seeds: int = option(None, "fine-tunings of a student on each task", whole(1, 100), "n")
    glue_options: str = option("", "more of glue.py: '--pool cls'", verbatim=True)
    # What is done
    jobs: int = option(None, "cells at once (default: one a core, 1 on GPUs)", whole(1, 1000), "N")
    out: Path = option(None, "default: runs/compare-PRESET", disk.path_of, "FOLDER")
    collect: tuple = option(None, "run nothing: one report of these", place, "FOLDER", nargs="+")
    list: bool = option(False, "print the cells as lines of shell, and stop")
    dry_run: bool = option(False, "print the grid and its price, and stop")
    # What follows: the seeds, and {strategy: its learning rate, or None for train.py's own}
    seed_numbers: tuple = ()
    rates: dict = None


def read_settings(words=None):
    """The Settings that a command line asks for (train.read_settings)."""
    asked = parsed(Settings, __doc__, words)
    preset = parsed(Settings, __doc__, presets.words_of_preset(asked.preset))
    return presets.completed(asked, preset)

# ---- The grid of students, and their differences to scratch, in pairs of one seed ----------------

PAIR = ["seed", "data", "flops"]      # what the two students of a pair share
KIND = ["data", "flops", "strategy"]  # students of a kind differ in their seed alone
ONLY_COPIED = "scratch" + COPIED      # layers of the teacher are all that it gets of it


def grid(study):
    """The students, each a Cell. Those of one seed differ in their strategy alone."""
    return [cells.student(study, strategy, flops, unique, seed)
            for flops in study.budgets for unique in study.unique_tokens
            for seed in study.seed_numbers for strategy in study.strategies]


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


def pairs_of(table, control="scratch"):
    """The students that have a partner, which is the one of `control` with the same seed, data and
    budget: it saw the same blocks and masks, and began with the same weights."""
    partners = table.loc[table["strategy"] == control, [*PAIR, "score"]]
    pairs = table[table["strategy"] != control].merge(partners, on=PAIR, suffixes=("", " there"))
    return pairs.assign(difference=pairs["score"] - pairs["score there"])


def judge(samples):
    """{what: Difference} of {what: differences, one for each pair}, but where there is no pair.
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


def kinds(table):
    """A row for each kind of students: means over its "n" students, "half" of their score's
    interval, how many have each skill, their Difference to scratch, and the compute multiplier."""
    differences = judge(pairs_of(table).groupby(KIND)["difference"].agg(list))
    groups = table.groupby(KIND, sort=False)
    rows = groups.mean(numeric_only=True).reset_index().to_dict("records")
    for row, (kind, own) in zip(rows, groups):
        row |= {"n": len(own), "half": interval(own["score"].tolist())[1],
                "difference": differences.get(kind), **own.filter(like="skill ").sum()}
    return [row | {"multiplier": multiplier(row, rows)} for row in rows]


def multiplier(row, rows):
    """How many times the budget scratch needs for the same score, read off its own curve. None
    where there is no pair, or no curve."""
    curve = {other["flops"]: other["score"] for other in rows
             if other["strategy"] == "scratch" and other["data"] == row["data"]}
    if row["difference"] is None or len(curve) == 1:
        return None
    # Scratch's mean plus the difference: the row's own seeds may be other ones than scratch's.
    score = curve[row["flops"]] + row["difference"].mean
    return compute_multiplier(list(curve.items()), row["flops"], score)


def pooled(table, rows):
    """A row for each data setting and strategy: its Difference to scratch as a mean over its
    budgets, whose rows are the "parts"; its "change" from the smallest budget to the largest; and
    whether it "depends" on the budget: the change is sure, and no less than MARGIN."""
    means, changes = {}, {}
    for key, own in pairs_of(table).groupby(["data", "strategy"], sort=False):
        by_budget = own.pivot(index="seed", columns="flops", values="difference")
        means[key] = by_budget.dropna().mean(axis=1).tolist()  # of the seeds that have all
        if means[key] and by_budget.shape[1] > 1:
            ends = by_budget.iloc[:, [0, -1]].dropna()
            changes[key] = (ends.iloc[:, 1] - ends.iloc[:, 0]).tolist()
    changes, found = judge(changes), []
    for (data, strategy), mean in judge(means).items():
        change = changes.get((data, strategy))
        is_sure = change is not None and change.verdict in ("ahead", "behind")
        parts = [row for row in rows
                 if (row["data"], row["strategy"]) == (data, strategy) and row["difference"]]
        found.append({"data": data, "strategy": strategy, "difference": mean, "change": change,
                      "depends": is_sure and abs(change.mean) >= MARGIN, "parts": parts})
    return found


def controls(table):
    """A row for each kind of students beside what it should beat: KD beside KD whose loss is
    divided by the vocabulary's size, and all beside copied layers alone, which cost nothing."""
    kd = pairs_of(table[table["strategy"].isin(["kd", "kd-released"])], "kd-released")
    others = pairs_of(table[table["strategy"] != "scratch"], ONLY_COPIED)
    pairs = pd.concat([kd.assign(control="kd-released"), others.assign(control=ONLY_COPIED)])
    columns = [*KIND, "control"]
    differences = judge(pairs.groupby(columns, sort=False)["difference"].agg(list))
    return [dict(zip(columns, key), difference=found) for key, found in differences.items()]

# ---- The program ---------------------------------------------------------------------------------

def run(study, lock):
    """Runs what is missing, and reports. Returns {cell's name: last line} of those that failed.
    lock: the open file that says that the folder is in use."""
    threads = cells.claim_folder(study)
    teacher, students = cells.teacher(study), grid(study)
    scored = cells.scores_of_teacher(study, study.out)
    if teacher:  # everything waits for it, so it alone has all processors
        failed = cells.run([teacher], study, lock, cells.threads_of(1), "teacher")
        if failed:
            raise UserError(f"the teacher failed, and all wait for it: {failed['teacher']}")
    failed = cells.run([scored, *students], study, lock, threads, "students")
    outcomes = {cell: found for cell in students if (found := cells.outcome(cell, study))}
    cells.check_texts(outcomes, study)
    if outcomes:
        tell(study, outcomes, cells.outcome(scored, study), len(students), failed)
    return failed


def tell(study, outcomes, teacher, planned, failed=()):
    """Writes the report and students.zip (report.write_report)."""
    command = shlex.join(["python", "compare.py", *sys.argv[1:]])
    report.write_report(study, findings(study, outcomes, teacher), command, planned, failed)
    handin.hand_in(study, outcomes, teacher)


def collect_into(asked):
    """Writes one report of all comparisons in --collect into --out."""
    with collect.gathered(asked) as (study, outcomes, teacher):
        tell(study, outcomes, teacher, len(outcomes))


def main():
    study = read_settings()
    if study.collect:
        return collect_into(study)
    students = grid(study)
    plan.check_pairs(study, students)
    if study.list:
        return cli.say(plan.lines_of_shell([cells.teacher(study), *students]))
    note_stories(study.data)
    cli.say(plan.describe(study, students))
    if study.dry_run:
        return
    plan.check_inputs(study, students)
    disk.make_folder(study.out)
    with disk.locked(study.out / "lock", "compares in the same folder") as lock:
        failed = run(study, lock)
    if failed:
        sys.exit(f"cells that failed: {len(failed)}; the same command tries them again")


if __name__ == "__main__":
    cli.program(main)
