"""What a comparison found, as numbers: rows for each kind of student, the differences over all
budgets, the skills.

Differences to scratch are paired by seed: the students of one seed saw the same blocks and masks,
and began with the same weights. Verdicts are corrected for how many are given together (Holm 1979,
in measure/statistics.py).
"""
import json
import statistics

from files import disk
from plumbing.cli import UserError
from program.options import COPIED

from measure import skills
from measure.scores import headline_part, score_of
from measure.statistics import (
    LEAST_PAIRS,
    LEVEL,
    MARGIN,
    compute_multiplier,
    equal_p_value,
    fisher_exact,
    holm,
    interval,
    mcnemar_exact,
    paired_p_value,
    shares_of_spread,
    verdict,
    wilson,
)
from reporting.card import left_plateau_at, on_plateau
from reporting.handin import LEFT_PLATEAU

ONLY_COPIED = "scratch" + COPIED  # layers of the teacher are all that it gets of it

# --------------------------------------------------------------------------------------------------
# The students


def students_of(args, outcomes, unique_tokens, flops, strategy):
    """{seed: outcome, with the student's folder} of the finished students of one kind, in the order
    of the seeds."""
    kind = (unique_tokens, flops, strategy)
    by_seed = {cell.seed: {**outcome, "folder": cell.folder} for cell, outcome in outcomes.items()
               if (cell.unique_tokens, cell.flops, cell.strategy) == kind}
    return {seed: by_seed[seed] for seed in args.seed_numbers if seed in by_seed}


def points_of(students):
    """{seed: score in points of 100}."""
    return {seed: 100 * score_of(outcome["results"]) for seed, outcome in students.items()}


def paired(points, others):
    """{seed: difference} of two kinds of students, {seed: points} each, over the seeds of both."""
    return {seed: points[seed] - others[seed] for seed in points if seed in others}


# --------------------------------------------------------------------------------------------------
# One row for each data setting, budget and strategy


def rows_of(args, outcomes):
    """The rows of a comparison. outcomes: {Cell: {"record", "results"}} of the finished cells."""
    rows = []
    for unique in args.unique_tokens:
        curve = scratch_curve(args, outcomes, unique)
        for C in args.budgets:
            scratch = students_of(args, outcomes, unique, C, "scratch")
            for strategy in args.strategies:
                students = students_of(args, outcomes, unique, C, strategy)
                if not students:
                    continue
                row = {"unique_tokens": unique, "flops": C, "strategy": strategy,
                       **own_columns(students), **loss_columns(students)}
                rows.append({**row, **compared_columns(row, points_of(scratch), curve)})
    return with_verdicts(rows)


def scratch_curve(args, outcomes, unique_tokens):
    """[(FLOPs, mean score)] of the students from scratch, by rising budget."""
    curve = []
    for C in args.budgets:
        points = points_of(students_of(args, outcomes, unique_tokens, C, "scratch"))
        if points:
            curve.append((C, statistics.mean(points.values())))
    return curve


def own_columns(students):
    """What a row says of its students' scores, and of what their budget was spent on."""
    points = points_of(students)
    mean, half = interval(list(points.values()))
    first = next(iter(students.values()))
    tasks = {}
    for task in first["results"]:
        scores = [score_of({task: outcome["results"][task]}) for outcome in students.values()]
        tasks[task] = statistics.mean(100 * score for score in scores)
    record = first["record"]  # tokens, epochs and bill are the same for all seeds
    return {"seeds": len(points), "score": mean, "half": half, "by_seed": points, "tasks": tasks,
            "tokens": record["tokens"], "epochs": record["epochs"], "bill": record["bill"]}


def loss_columns(students):
    """What a row says of the validation loss. Students without an MLM head have none."""
    records = {seed: outcome["record"] for seed, outcome in students.items()
               if outcome["record"]["val_loss"] is not None}
    losses = {seed: record["val_loss"] for seed, record in records.items()}
    mean, half = interval(list(losses.values())) if losses else (None, None)
    exits = [left_plateau(students[seed]["folder"], record) for seed, record in records.items()]
    exits = [flops for flops in exits if flops is not None]
    return {"exits": len(exits), "exit": statistics.median(exits) if exits else None,
            "val_loss": mean, "loss_half": half, "loss_by_seed": losses,
            "plateau": any(on_plateau(record) for record in records.values())}


def with_exits(outcomes):
    """The outcomes, each record with the FLOPs at which its student left the plateau, so that a
    report reads each log once."""
    return {cell: {**outcome, "record": {
        **outcome["record"], LEFT_PLATEAU: left_plateau(cell.folder, outcome["record"])}}
        for cell, outcome in outcomes.items()}


def left_plateau(folder, record):
    """The FLOPs at which a student left the plateau, by its record where that says so (with_exits,
    students.zip), else by its log. None where it did not, or where the log is missing or damaged:
    the model and its scores are whole without it."""
    if LEFT_PLATEAU in record:
        return record[LEFT_PLATEAU]
    try:
        lines = disk.read_text(folder / "log.jsonl").splitlines()
        return left_plateau_at([json.loads(line) for line in lines], record["unigram_loss"])
    except (OSError, UserError, ValueError):
        return None


def compared_columns(row, scratch, curve):
    """What a row says of its difference to scratch. scratch: {seed: points} of the same data and
    budget; curve: as in compute_multiplier."""
    is_scratch = row["strategy"] == "scratch"
    differences = {} if is_scratch else paired(row["by_seed"], scratch)
    columns = {**difference_columns(differences), "differences": differences, "multiplier": None}
    if columns["pairs"] and len(curve) > 1:
        # Scratch's mean plus the paired difference, and not the mean of the strategy's own seeds:
        # these may be other ones than scratch's.
        score = dict(curve)[row["flops"]] + columns["difference"]
        columns["multiplier"] = compute_multiplier(curve, row["flops"], score)
    return columns


def difference_columns(differences):
    """The mean of paired differences, {seed: points}, its interval and its two p-values."""
    differences = list(differences.values())
    columns = {"pairs": len(differences), "difference": None, "difference_half": None, "p": None,
               "equal_p": None}
    if differences:
        mean, half = interval(differences)
        columns |= {"difference": mean, "difference_half": half, "p": paired_p_value(differences),
                    "equal_p": equal_p_value(differences)}
    return columns


def with_verdicts(rows):
    """The rows with a verdict each. They are one family, whose p-values are corrected together."""
    corrected = zip(holm([row["p"] for row in rows]), holm([row["equal_p"] for row in rows]))
    for row, (p, equal_p) in zip(rows, corrected):
        row["corrected_p"], row["verdict"] = p, ""
        if row["pairs"]:
            row["verdict"] = verdict(row["difference"], p, equal_p, row["pairs"])
    return rows


def controls_of(args, outcomes):
    """Rows of the differences between students and what they should beat, paired by seed, where
    both were run: `control` is what `strategy` is compared with."""
    rows = []
    for strategy, control in pairs_of_controls(args.strategies):
        for unique in args.unique_tokens:
            for C in args.budgets:
                points, others = (points_of(students_of(args, outcomes, unique, C, name))
                                  for name in (strategy, control))
                columns = difference_columns(paired(points, others))
                if columns["pairs"]:
                    rows.append({"strategy": strategy, "control": control,
                                 "unique_tokens": unique, "flops": C, **columns})
    return with_verdicts(rows)


def pairs_of_controls(strategies):
    """Is KD better where its loss is not divided by the vocabulary's size? And does distilling give
    more than to copy layers of the teacher, which costs nothing? (What copied layers give beside
    scratch is said elsewhere.)"""
    yield "kd", "kd-released"
    for strategy in strategies:
        if strategy not in ("scratch", ONLY_COPIED):
            yield strategy, ONLY_COPIED


def is_told_apart(row):
    """Whether the row's students differ from scratch by more than the noise."""
    return row["verdict"].startswith(("ahead", "behind"))


def levels_of(outcomes, teacher=None):
    """What the students' scores and losses lie between: {"score": {name: points}, "val_loss":
    {name: nats}}. teacher: the teacher's outcome, where it was scored."""
    first = next(iter(outcomes.values()))
    guessing = statistics.mean(guessing_score(result) for result in first["results"].values())
    levels = {"score": {"guessing": 100 * guessing},
              "val_loss": {"plateau (unigram)": first["record"]["unigram_loss"]}}
    if teacher and teacher["results"]:
        levels["score"]["teacher"] = 100 * score_of(teacher["results"])
    if teacher and teacher["record"].get("val_loss") is not None:
        levels["val_loss"]["teacher"] = teacher["record"]["val_loss"]
    return levels


def guessing_score(result):
    """What an answer without reading scores on the part of a task that `headline` reads.

    It is the score of the majority answer. Only F1 is 0 where that answer is "no"; whoever then
    says "yes" as often as it is right has an F1 of that share."""
    majority = dict(result["majority"][headline_part(result)])
    if majority.get("f1") == 0:
        majority["f1"] = 1 - majority["accuracy"]
    return statistics.mean(majority.values())


def silent_tasks(rows, outcomes):
    """The tasks on which no kind of students has a mean of a point more than guessing: a difference
    there is one between ways to guess."""
    results = next(iter(outcomes.values()))["results"]
    return [task for task, result in results.items()
            if max(row["tasks"][task] for row in rows) < 100 * guessing_score(result) + 1]


# --------------------------------------------------------------------------------------------------
# The difference to scratch over all budgets of a data setting


def pooled_of(args, rows):
    """One row for each data setting and strategy: its difference to scratch as a mean over the
    budgets at which it has one. Seeds that lack one of these are left out.

    `parts` are the rows of these budgets. `change` is the difference at the largest of them less
    that at the smallest, and `depends` says whether the difference depends on the budget."""
    pooled = []
    for unique in args.unique_tokens:
        for strategy in args.strategies:
            parts = [row for row in rows if row["pairs"]
                     and (row["unique_tokens"], row["strategy"]) == (unique, strategy)]
            if parts:
                by_seed = [part["differences"] for part in parts]
                pooled.append({"unique_tokens": unique, "strategy": strategy, "parts": parts,
                               "budgets": [part["flops"] for part in parts],
                               **difference_columns(mean_over(by_seed)),
                               "change": difference_columns(change_over(by_seed))})
    return with_dependence(with_verdicts([row for row in pooled if row["pairs"]]))


def mean_over(by_seed):
    """{seed: its mean over the budgets}, of the seeds that have them all. by_seed: for each budget
    {seed: points}."""
    return {seed: statistics.mean(points[seed] for points in by_seed) for seed in by_seed[0]
            if all(seed in points for points in by_seed)}


def change_over(by_seed):
    """{seed: its points at the last budget less those at the first}, of the seeds that have both.
    Empty where there is one budget. by_seed: as in mean_over."""
    return paired(by_seed[-1], by_seed[0]) if len(by_seed) > 1 else {}


def with_dependence(pooled):
    """The pooled rows, each with `depends`. Their changes are a family of their own, whose
    p-values are corrected together."""
    for row, p in zip(pooled, holm([row["change"]["p"] for row in pooled])):
        row["change"]["corrected_p"] = p
        row["depends"] = depends_on_budget(row["parts"], row["change"])
    return pooled


def depends_on_budget(parts, change):
    """Whether a difference to scratch depends on the budget, so that its mean over the budgets is
    an answer for none of them: two verdicts contradict each other, or the change is for sure, and
    one that counts (MARGIN)."""
    if {"ahead of scratch", "behind scratch"} <= {part["verdict"] for part in parts}:
        return True
    p = change["corrected_p"]
    return p is not None and p < LEVEL and abs(change["difference"]) >= MARGIN


# --------------------------------------------------------------------------------------------------
# Skills


def skills_of(args, outcomes):
    """One row for each data setting, budget, strategy and embedded task: how many students have
    the skill, with Wilson's interval, and whether scratch has it as often. No rows for other
    tasks."""
    rows = []
    for unique in args.unique_tokens:
        for C in args.budgets:
            scratch = students_of(args, outcomes, unique, C, "scratch")
            for strategy in args.strategies:
                students = students_of(args, outcomes, unique, C, strategy)
                for task in skill_names(students):
                    has, others = having(task, students), having(task, scratch)
                    k, n = sum(has.values()), len(has)
                    row = {"unique_tokens": unique, "flops": C, "strategy": strategy, "task": task,
                           "k": k, "n": n, "interval": wilson(k, n), "p": None, "test": None}
                    if strategy != "scratch" and others:
                        row["p"], row["test"] = skill_test(has, others)
                    rows.append(row)
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row["corrected_p"] = p
        row["told_apart"] = p is not None and p < LEVEL
    return rows


def skill_names(students):
    """The embedded tasks that the students were scored on."""
    first = next(iter(students.values()), {"results": {}})
    return [task for task in first["results"] if task in skills.GATE]


def having(task, students):
    """{seed: whether the student has the skill}."""
    return {seed: skills.has_skill(task, outcome["results"][task])
            for seed, outcome in students.items()}


def skill_test(has, others):
    """(p-value, name of the test) for one skill of two kinds of students, {seed: whether it has it}
    each. It is McNemar's for the pairs of one seed, and Fisher's where no seed has both. Pairs that
    are too few for any verdict are not tested: (None, None)."""
    pairs = [(has[seed], others[seed]) for seed in has if seed in others]
    if not pairs:
        p = fisher_exact(sum(has.values()), len(has), sum(others.values()), len(others))
        return p, "Fisher"
    if len(pairs) < LEAST_PAIRS:
        return None, None
    return mcnemar_exact(pairs), "McNemar"


# --------------------------------------------------------------------------------------------------
# Where the spread comes from


def spread_of(args, outcomes):
    """(between students, between fine-tunings of one student): variances of a task's score in
    squared points, means over all kinds of students and tasks. None with one fine-tuning each, or
    where all scores are equal."""
    shares, weights = [], []
    for unique in args.unique_tokens:
        for C in args.budgets:
            for strategy in args.strategies:
                students = students_of(args, outcomes, unique, C, strategy).values()
                for results in zip(*(outcome["results"].values() for outcome in students)):
                    if len(results) > 1 and results[0]["seeds"] > 1:
                        shares.append(spread_of_task(results))
                        weights.append(len(results) - 1)  # degrees of freedom
    if not any(between or within for between, within in shares):
        return None
    between, within = (sum(w * share for w, share in zip(weights, part)) / sum(weights)
                       for part in zip(*shares))
    return max(0.0, between), within


def spread_of_task(results):
    """The two variances of one kind of students on one task."""
    scores = [result["score"][headline_part(result)] for result in results]
    return shares_of_spread([100 * mean for mean, _ in scores],
                            [(100 * deviation) ** 2 for _, deviation in scores],
                            results[0]["seeds"])
