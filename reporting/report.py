"""report.md: what a comparison found, in figures, in tables, and in a sentence of advice for each
data setting. compare.py makes the numbers, and hands them over as `Found`.
"""
from typing import Any, NamedTuple, Optional

from files import disk
from program import cli
from running.options import COPIED

from measure.scores import GATE, guessing_score, has_skill, headline, score_of
from measure.statistics import MARGIN, break_even, wilson
from reporting.card import on_plateau
from reporting.figures import draw_bill, draw_forest, draw_scores
from reporting.words import data_setting, listed, plus_minus

VERDICTS = {"ahead": "ahead of {}", "behind": "behind {}", "open": "not told apart from {}",
            "equal": f"equal to {{}} within {MARGIN:g} points", "": "one pair: no verdict"}


class Found(NamedTuple):
    """What a comparison found. The rows are dictionaries, and compare.py's functions of the same
    names say what is in them."""
    outcomes: dict           # {Cell: {"record": its run.json, "results": {task: summary}}}
    teacher: Optional[dict]  # the teacher's own outcome, where it was scored
    students: Any            # a pandas.DataFrame with a row for each student
    kinds: list              # a row for students that differ in their seed alone
    pooled: list             # a row for a difference over all budgets
    controls: list           # a row for a difference to what a strategy should beat

    @property
    def first(self):
        """One outcome, for what all have alike."""
        return next(iter(self.outcomes.values()))


def more_of(record, results):
    """The columns of a student beside what it is, its score and its loss. record, results: its
    run.json and {task: summary}."""
    has_loss = record["val_loss"] is not None
    return {"lr": record["settings"]["lr"], "plateau": has_loss and on_plateau(record),
            **{key: record[key] for key in ("tokens", "epochs", "flops_spent", "seconds")},
            **{f"bill {part}": flops for part, flops in record["bill"].items()},
            **{f"task {task}": 100 * headline(result) for task, result in results.items()},
            **{f"skill {task}": has_skill(task, result) for task, result in results.items()
               if task in GATE}}


def markdown_table(heads, rows):
    """Rows of words as lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def kind_of(row):
    """The first columns of a table: what the students of a row are."""
    return [data_setting(row["data"]), cli.flops(row["flops"]), row["strategy"]]


def compared(found, control="scratch"):
    """The columns of a difference: points, pairs, p and verdict. A single pair has no p."""
    p = "" if found.p is None else f"{found.p:.2g}"
    if p and found.p < 0.001:
        p = "< 0.001"
    return [plus_minus(found.mean, found.half), str(found.pairs), p,
            VERDICTS[found.verdict].format(control)]


# --------------------------------------------------------------------------------------------------
# The first page


def advice(study, found):
    """What the verdicts mean for somebody who has a budget: a sentence for each data setting. The
    verdict over all budgets rests on the most students, and counts where it is one."""
    sentences = []
    for data in dict.fromkeys(row["data"] for row in found.pooled):
        cases = {}  # {what to do: the budgets for which}
        for C in study.budgets:
            verdicts = {row["strategy"]: (part if row["depends"] else row)["difference"].verdict
                        for row in found.pooled if row["data"] == data
                        for part in row["parts"] if part["flops"] == C}
            if verdicts:
                cases.setdefault(what_to_do(verdicts), []).append(cli.flops(C))
        words = [f"at {listed(budgets)} FLOPs {words}" for words, budgets in cases.items()]
        sentences.append(f"With {data_setting(data)}, {'; '.join(words)}.")
    return sentences


def what_to_do(verdicts):
    """Advice for one budget. verdicts: {strategy: verdict}."""
    ahead = [name for name, verdict in verdicts.items() if verdict == "ahead"]
    undecided = [name for name, verdict in verdicts.items() if verdict in ("open", "")]
    if "scratch" + COPIED in ahead:  # the copy costs nothing, so others must give more
        return f"take scratch{COPIED}, or what is ahead of it below, if you have a teacher"
    if ahead:
        return f"take {listed(ahead, 'or')} if you have a teacher"
    if undecided:
        return f"it is open whether {listed(undecided, 'or')} beats scratch"
    return "pretrain from scratch, and save yourself the teacher"


def first_page(study, found):
    """The figure, a row for each difference, and a sentence of advice for each data setting."""
    if not found.pooled:
        return ["There is nothing to compare: no student has a partner from scratch with the same "
                "seed, data and budget.", ""]
    return [" ".join(advice(study, found)), "", "![differences to scratch](forest.png)", "",
            "Points of the score more than scratch, as means over the budgets, with 95% intervals "
            "(Student's t, paired by seed). A verdict, bold and filled in the figure, is given "
            f"where it holds after correction for all {len(found.pooled)} rows (Holm). *Equal* "
            f"means that the whole interval lies within {MARGIN:g} points of zero. *Change* is the "
            "difference at the row's largest budget less that at its smallest, corrected likewise. "
            f"One that is sure, and no less than {MARGIN:g} points, makes a row *depend on the "
            "budget*: its mean is an answer for none of them. Fewer than 6 pairs are a "
            "demonstration.", "",
            *markdown_table(["data", "FLOPs", "strategy", "points", "pairs", "p", "verdict",
                             "change", "p of it"], map(pooled_row, found.pooled)), ""]


def pooled_row(row):
    """A difference over all budgets as a row of words."""
    own = compared(row["difference"])
    change = compared(row["change"]) if row["change"] else [""] * 4
    if row["depends"]:
        own[2:] = ["", "depends on the budget"]
    budgets = listed([cli.flops(part["flops"]) for part in row["parts"]])
    return [data_setting(row["data"]), budgets, row["strategy"], *own, change[0], change[2]]


# --------------------------------------------------------------------------------------------------
# What it rests on


def budget_section(study, found):
    """The differences to scratch at each budget, where there are several, and those to what else a
    strategy should beat."""
    rows = [[*kind_of(row), *compared(row["difference"]), *worth(row, study.teacher_flops)]
            for row in found.kinds if row["difference"] and len(study.budgets) > 1]
    controls = [[*kind_of(row), *compared(row["difference"], row["control"]), "", ""]
                for row in found.controls]
    lines = ["## Budget by budget", ""]
    if rows or controls:
        heads = ["data", "FLOPs", "strategy", "points", "pairs", "p", "verdict",
                 "scratch needs", "pays off"]
        lines += ["Verdicts beside scratch are corrected together (Holm), and so are all others. "
                  "*Scratch needs*: how many times the budget, to score the same, by its own curve "
                  "(> and <: beyond what was measured). *Pays off*: whoever also pays for the "
                  "teacher's training has it back from so many students on.", "",
                  *markdown_table(heads, rows + controls), ""]
    return [*lines, "![scores](scores.png)", ""]


def worth(row, teacher_flops):
    """The compute multiplier, and from how many students on the teacher pays off. Nothing where the
    difference may be noise."""
    if not row["multiplier"] or row["difference"].verdict not in ("ahead", "behind"):
        return ["", ""]
    sign, kappa = row["multiplier"]
    n, pays_off = break_even(teacher_flops, kappa, row["flops"]), ""
    if n and sign != "<":  # where kappa is a lower bound, n is an upper one
        pays_off = f"{n:,} students" + ", if not before" * (sign == ">")
    return [f"{sign} {kappa:.2g} x".removeprefix("= "), pays_off]


def table_section(found):
    """A row for each kind of students, with how many of them have each skill."""
    tasks = list(found.first["results"])
    skills = [task for task in tasks if task in GATE]
    heads = ["data", "FLOPs", "strategy", "students", "tokens", "epochs", "MLM loss", *tasks,
             "score", *(f"can do {task}" for task in skills)]
    rows = []
    for row in found.kinds:
        loss = f"{row['val_loss']:.3f}".replace("nan", "no head")
        rows.append([*kind_of(row), str(row["n"]), cli.flops(row["tokens"]), f"{row['epochs']:.3g}",
                     loss + " (plateau)" * bool(row["plateau"]),
                     *(f"{row[f'task {task}']:.1f}" for task in tasks),
                     plus_minus(row["score"], row["half"])])
        for task in skills:
            k, n = int(row[f"skill {task}"]), row["n"]
            low, high = wilson(k, n)
            rows[-1].append(f"{k} of {n} [{100 * low:.0f}, {100 * high:.0f}]")
    return ["## The table", "",
            "In points, mean over seeds ± half of the 95% interval (Student's t). `(plateau)`: the "
            "validation loss of a student ended less than a tenth below the unigram loss."
            + " *Can do*: a score beyond half of the way from an untrained network to the teacher "
            "of the gate, with Wilson's 95% interval of the share in percent." * bool(skills), "",
            *markdown_table(heads, rows), ""]


def making_section(found, command):
    """The command, what all students share, the seconds of pretraining, the machines, the bill."""
    records = [outcome["record"] for outcome in found.outcomes.values()]
    settings = records[0]["settings"]
    seconds = found.students.groupby("strategy", sort=False)["seconds"].mean()
    machines = {f"torch {record['versions']['torch']}, {record['machine']}, "
                f"threads: {record['threads']}" for record in records}
    return ["## How it was made", "", "```bash", command, "```", "",
            "All students of a seed see the same blocks and masks in the same order and, but for "
            f"those with `{COPIED}`, begin with the same weights. T = {settings['seq_len']}, B = "
            f"{settings['batch_size']}, betas {settings['betas']}, {settings['dtype']}. Seconds of "
            f"pretraining: {', '.join(f'{name} {mean:.0f}' for name, mean in seconds.items())}. "
            f"{'; '.join(sorted(machines))}.", "", "![bill](bill.png)", ""]


def limits_section(study, found):
    """What the comparison cannot say."""
    epochs = max(row["epochs"] for row in found.kinds)
    rates = [f"{name} {study.rates.get(name) or 'by default'}" for name in study.strategies]
    silent = [task for task, result in found.first["results"].items()
              if max(row[f"task {task}"] for row in found.kinds) < 100 * guessing_score(result) + 1]
    return ["## What would change this", "",
            f"- {cli.counted(len(study.seed_numbers), 'seed')}: differences smaller than the "
            "intervals are not seen.",
            *(f"- {task}: no mean is a point more than guessing. A difference there is one between "
              "ways to guess." for task in silent),
            f"- One schedule, and one learning rate for each strategy: {', '.join(rates)}.",
            "- Another teacher, other tasks, budgets beyond the plateau, or more than "
            f"{epochs:.3g} epochs of the data.", ""]


def levels_of(found):
    """What the students' scores and losses lie between: {"score": {name: points}, "val_loss":
    {name: nats}}."""
    teacher = found.teacher
    guesses = [guessing_score(result) for result in found.first["results"].values()]
    levels = {"score": {"guessing": 100 * sum(guesses) / len(guesses)},
              "val_loss": {"plateau (unigram)": found.first["record"]["unigram_loss"]}}
    if teacher and teacher["results"]:
        levels["score"]["teacher"] = 100 * score_of(teacher["results"])
    if teacher and teacher["record"].get("val_loss") is not None:
        levels["val_loss"]["teacher"] = teacher["record"]["val_loss"]
    return levels


def write_report(study, found, command, planned, failed=()):
    """Writes report.md, results.csv and the figures into study.out, and prints the advice. command:
    what makes the report; planned: how many students there are to be; failed: {cell's name: its
    last line}."""
    lasting = found.students.drop(columns="seconds")  # which no second run would have again
    disk.write_file(study.out / "results.csv", lasting.round(6).to_csv(index=False))
    (study.out / "forest.png").unlink(missing_ok=True)  # an earlier report may have had one
    if found.pooled:
        draw_forest(found, study.out)
    draw_scores(study, found, levels_of(found))
    draw_bill(found, study.out)
    teacher = study.teacher or f"trained here with {cli.flops(study.teacher_flops)} FLOPs"
    lines = ["# From scratch or distilled, at equal compute?", "",
             f"Student BERT {study.model}, teacher BERT {study.teacher_model} ({teacher}), text: "
             f"{study.data}, tasks: {', '.join(found.first['results'])}, {len(found.outcomes)} of "
             f"{planned} students.", "",
             *first_page(study, found), *budget_section(study, found), *table_section(found),
             *making_section(found, command), *limits_section(study, found),
             *(f"Failed cell: {name}: {line}\n" for name, line in dict(failed).items())]
    disk.write_file(study.out / "report.md", "\n".join(lines))
    cli.say("\n".join([*advice(study, found), f"report      {study.out / 'report.md'} (figures, "
                       "results.csv and students.zip beside it)"]))
