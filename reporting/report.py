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
from reporting.words import data_setting, difference_words, listed, plus_minus

VERDICTS = {"ahead": "ahead of {}", "behind": "behind {}", "open": "not told apart from {}",
            "equal": f"equal to {{}} within {MARGIN:g} points", "": "one pair: no verdict"}
FEW = 6  # pairs, below which a difference is a demonstration


class Found(NamedTuple):
    """What a comparison found. The rows are dictionaries, and compare.py's functions of the same
    names say what is in them."""
    outcomes: dict           # {Cell: {"record": its run.json, "results": {task: summary}}}
    teacher: Optional[dict]  # the teacher's own outcome, where it was scored
    students: Any            # a pandas.DataFrame with a row for each student
    kinds: list              # a row for students that differ in their seed alone
    pooled: list             # a row for a difference over all budgets
    controls: list           # a row for a difference to what a strategy should beat


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


def setting_of(row):
    """In words, what the students of a row share with those that they are compared with."""
    return data_setting(row["data"])


def kind_of(row):
    """The first columns of a table: what the students of a row are."""
    return [setting_of(row), cli.flops(row["flops"]), row["strategy"]]


def compared(found, control="scratch"):
    """The columns of a difference: points, pairs, p and verdict."""
    return [difference_words(found), str(found.pairs), p_words(found.p),
            VERDICTS[found.verdict].format(control)]


def p_words(p):
    """A p-value, corrected, in words. Nothing for a single pair, which has none."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


# --------------------------------------------------------------------------------------------------
# The first page


def advice(study, found):
    """What the verdicts mean for somebody who has a budget: a sentence for each data setting, and
    one on the teacher's price."""
    sentences = []
    for setting in dict.fromkeys(map(setting_of, found.pooled)):
        rows = [row for row in found.pooled if setting_of(row) == setting]
        cases = {}  # {what to do: the budgets for which}
        for C in study.budgets:
            verdicts = verdicts_at(C, rows)
            better = beyond_copies(setting, C, found.controls)
            if verdicts:
                cases.setdefault(what_to_do(verdicts, better), []).append(cli.flops(C))
        words = [f"at {listed(budgets)} FLOPs {words}" for words, budgets in cases.items()]
        sentences.append(f"With {setting}, {'; '.join(words)}.")
    if study.teacher_flops:
        prices = [f"{study.teacher_flops / C:,.1f}".removesuffix(".0") + f" of {cli.flops(C)}"
                  for C in study.budgets]
        sentences.append("To train the teacher first costs as much as so many students: "
                         f"{listed(prices, 'or')} FLOPs.")
    return sentences


def verdicts_at(C, rows):
    """{strategy: verdict} for a budget. It is the one over all budgets, which rests on the most
    students, but where the difference depends on the budget that at this one."""
    return {row["strategy"]: (part if row["depends"] else row)["difference"].verdict
            for row in rows for part in row["parts"] if part["flops"] == C}


def beyond_copies(setting, C, controls):
    """The strategies that are ahead of copied layers alone, which cost nothing."""
    return [row["strategy"] for row in controls
            if (setting_of(row), row["flops"], row["control"]) == (setting, C, "scratch" + COPIED)
            and row["difference"].verdict == "ahead"]


def what_to_do(verdicts, better):
    """Advice for one budget. verdicts: {strategy: verdict}; better: of beyond_copies. Where copied
    layers alone are ahead, a distillation is advised only if it gives more than those."""
    ahead = [name for name, verdict in verdicts.items() if verdict == "ahead"]
    if "scratch" + COPIED in ahead:
        ahead = [name for name in ahead if name in ("scratch" + COPIED, *better)]
    undecided = [name for name, verdict in verdicts.items() if verdict in ("open", "")]
    if ahead:
        return f"take {listed(ahead, 'or')} if you have a teacher"
    if undecided:
        return f"it is open whether {listed(undecided, 'or')} beats scratch"
    return "pretrain from scratch, and save yourself the teacher"


CHANGES = (" *Change* is the difference at the row's largest budget less that at its smallest; the "
           "changes are corrected together. One that is sure, and no less than "
           f"{MARGIN:g} points, makes a row *depend on the budget*: its mean is an answer for none "
           "of them.")


def first_page(study, found):
    """Advice, the figure, and a row for each difference."""
    if not found.pooled:
        return ["There is nothing to compare: no student has a partner from scratch with the same "
                "seed, data and budget.", ""]
    heads = ["data", "FLOPs", "strategy", "points", "pairs", "p", "verdict", "change", "p of it"]
    has_changes = any(row["change"] for row in found.pooled)
    few = min(row["difference"].pairs for row in found.pooled) < FEW
    rows = [pooled_row(row) for row in found.pooled]
    if not has_changes:
        heads, rows = heads[:-2], [row[:-2] for row in rows]
    return [" ".join(advice(study, found)), "", "![differences to scratch](forest.png)", "",
            "Points of the score more than scratch, as means over the budgets, with 95% intervals "
            "(Student's t, paired by seed). A verdict, bold and filled in the figure, is given "
            f"where it holds after correction for all {len(rows)} rows (Holm). *Equal* means that "
            f"the whole interval lies within {MARGIN:g} points of zero." + CHANGES * has_changes
            + f" **Fewer than {FEW} pairs are a demonstration.**" * few, "",
            *markdown_table(heads, rows), ""]


def pooled_row(row):
    """A difference over all budgets as a row of words."""
    points, pairs, p, verdict = compared(row["difference"])
    if row["depends"]:
        p, verdict = "", "depends on the budget"
    change = row["change"]
    changed = [difference_words(change), p_words(change.p)] if change else ["", ""]
    budgets = listed([cli.flops(part["flops"]) for part in row["parts"]])
    return [setting_of(row), budgets, row["strategy"], points, pairs, p, verdict, *changed]


# --------------------------------------------------------------------------------------------------
# What it rests on


def budget_section(study, found):
    """The differences at each budget, and what they are worth. Of one budget alone the first page
    has said all."""
    rows = [[*kind_of(row), *compared(row["difference"]), *worth(row, study.teacher_flops)]
            for row in found.kinds if row["difference"]]
    lines = []
    if len(study.budgets) > 1 and rows:
        heads = ["data", "FLOPs", "strategy", "points", "pairs", "p", "verdict",
                 "scratch needs", "pays off"]
        lines = [f"The verdicts are corrected for all {len(rows)} rows (Holm). *Scratch needs*: "
                 "how many times the budget, to score the same, by its own curve. > and <: beyond "
                 "the budgets that were measured, if at all. *Pays off*: whoever also pays for the "
                 "teacher's training has it back from so many students on.", "",
                 *markdown_table(heads, rows), ""]
    return ["## Budget by budget", "", *lines, "![scores](scores.png)", ""]


def worth(row, teacher_flops):
    """The compute multiplier, and from how many students on the teacher pays off. Nothing where the
    difference may be noise."""
    if not row["multiplier"] or row["difference"].verdict not in ("ahead", "behind"):
        return ["", ""]
    sign, kappa = row["multiplier"]
    n = break_even(teacher_flops, kappa, row["flops"])
    pays_off = ""
    if n and sign != "<":  # where kappa is a lower bound, n is an upper one
        pays_off = f"{n:,} students" if sign == "=" else f"{n:,} students, if not before"
    return [f"{kappa:.2g} x" if sign == "=" else f"{sign} {kappa:.2g} x", pays_off]


def controls_section(found):
    """The students beside what they should beat. Nothing where none was run."""
    rows = [[*kind_of(row), row["control"], *compared(row["difference"], row["control"])]
            for row in found.controls]
    if not rows:
        return []
    return ["## Against the controls", "",
            f"`scratch{COPIED}` begins with layers copied from the teacher and reads nothing else "
            "of it. A distillation that is not ahead of it is not shown to give more than this "
            "copy, which costs nothing. `kd-released` divides KD's term by the size of the "
            f"vocabulary. The verdicts are corrected for all {len(rows)} rows (Holm).", "",
            *markdown_table(["data", "FLOPs", "strategy", "control", "points", "pairs", "p",
                             "verdict"], rows), ""]


def names_in(row, sort):
    """The names of a row's columns of one sort: "task rte" is of the sort "task"."""
    return [column.removeprefix(f"{sort} ") for column in row if column.startswith(f"{sort} ")]


def scores_section(found):
    """A row for each kind of students, and how many have each skill."""
    tasks, skills = (names_in(found.kinds[0], sort) for sort in ("task", "skill"))
    rows = []
    for row in found.kinds:
        has_loss = row["val_loss"] == row["val_loss"]  # NaN is not equal to itself
        loss = f"{row['val_loss']:.3f}" if has_loss else "no head"
        rows.append([*kind_of(row), str(row["n"]), cli.flops(row["tokens"]), f"{row['epochs']:.3g}",
                     loss + " (plateau)" * bool(row["plateau"]),
                     *(f"{row[f'task {task}']:.1f}" for task in tasks),
                     plus_minus(row["score"], row["half"])])
    return ["## Scores", "",
            "In points, mean over seeds ± half of the 95% interval (Student's t). `(plateau)`: the "
            "validation loss of a student ended less than a tenth below the unigram loss.", "",
            *markdown_table(["data", "FLOPs", "strategy", "students", "tokens", "epochs",
                             "MLM loss", *tasks, "score"], rows), "",
            *(skills_table(found.kinds, skills) if skills else [])]


def skills_table(kinds, skills):
    """How many students can do each embedded task."""
    rows = []
    for row in kinds:
        counts = [int(row[f"skill {task}"]) for task in skills]
        bounds = [wilson(k, row["n"]) for k in counts]
        rows.append([*kind_of(row), *(f"{k} of {row['n']} [{100 * low:.0f}, {100 * high:.0f}]"
                                      for k, (low, high) in zip(counts, bounds))])
    lines = [f"{task} {sum(GATE[task]) / 2:.0f}" for task in skills]
    return ["A score on these tasks is a switch: a student can do the task, or is right as often "
            "as a coin. So many students have the skill, with Wilson's 95% interval of the share "
            "in percent. A student has it where it scores beyond half of the way from an untrained "
            "network to the teacher of the gate (points above the majority answer: "
            f"{listed(lines)}).", "",
            *markdown_table(["data", "FLOPs", "strategy", *skills], rows), ""]


def levels_of(found):
    """What the students' scores and losses lie between: {"score": {name: points}, "val_loss":
    {name: nats}}."""
    first, teacher = next(iter(found.outcomes.values())), found.teacher
    guesses = [guessing_score(result) for result in first["results"].values()]
    levels = {"score": {"guessing": 100 * sum(guesses) / len(guesses)},
              "val_loss": {"plateau (unigram)": first["record"]["unigram_loss"]}}
    if teacher and teacher["results"]:
        levels["score"]["teacher"] = 100 * score_of(teacher["results"])
    if teacher and teacher["record"].get("val_loss") is not None:
        levels["val_loss"]["teacher"] = teacher["record"]["val_loss"]
    return levels


def silent_tasks(found):
    """The tasks on which no kind of students has a mean of a point more than guessing."""
    results = next(iter(found.outcomes.values()))["results"]
    return [task for task, result in results.items()
            if max(row[f"task {task}"] for row in found.kinds) < 100 * guessing_score(result) + 1]


def limits_section(study, found):
    """What the comparison cannot say."""
    n, epochs = len(study.seed_numbers), max(row["epochs"] for row in found.kinds)
    rates = [f"{name} {study.rates[name]:g}" for name in study.strategies if study.rates.get(name)]
    default = [name for name in study.strategies if not study.rates.get(name)]
    rates += [f"train.py's own for {listed(default)}"] if default else []
    silent = silent_tasks(found)
    return ["## What would change this", "",
            f"- {cli.counted(n, 'seed')}: differences smaller than the intervals are not seen.",
            *([f"- {listed(silent)}: no kind of students has a mean of a point more than guessing. "
               "A difference there is one between ways to guess."] if silent else []),
            f"- One schedule, and one learning rate for each strategy: {', '.join(rates)}.",
            "- Budgets at which students sit on the plateau say little about what comes after.",
            f"- Another teacher, other tasks, or more repetitions of the data than {epochs:.3g} "
            "epochs.", ""]


def making_section(found, command):
    """The command, the settings that all share, the seconds of pretraining, and the machines."""
    records = [outcome["record"] for outcome in found.outcomes.values()]
    settings = records[0]["settings"]
    seconds = found.students.groupby("strategy", sort=False)["seconds"].mean()
    machines = {f"torch {record['versions']['torch']}, {record['machine']}, "
                f"{cli.counted(record['threads'], 'thread')} a student" for record in records}
    return ["## How it was made", "", "```bash", command, "```", "",
            f"T = {settings['seq_len']}, B = {settings['batch_size']}, betas {settings['betas']}, "
            f"{settings['dtype']}. Seconds of pretraining: "
            f"{', '.join(f'{name} {mean:.0f}' for name, mean in seconds.items())}. "
            f"{'; '.join(sorted(machines))}.", ""]


# --------------------------------------------------------------------------------------------------
# All of it


def write_report(study, found, command, planned, failed=()):
    """Writes report.md, results.csv and the figures into study.out, and prints what the report says
    first.

    study: the settings; command: the line that makes the report; planned: how many students there
    are to be; failed: {cell's name: its last line} of those that failed."""
    lasting = found.students.drop(columns="seconds")  # which no second run would have again
    disk.write_file(study.out / "results.csv", lasting.round(6).to_csv(index=False))
    (study.out / "forest.png").unlink(missing_ok=True)  # an earlier report may have had one
    if found.pooled:
        draw_forest(found, study.out)
    draw_scores(study, found, levels_of(found))
    draw_bill(found, study.out)
    teacher = study.teacher or f"trained here with {cli.flops(study.teacher_flops)} FLOPs"
    missing = f" of {planned}" if len(found.outcomes) < planned else ""
    lines = ["# From scratch or distilled, at equal compute?", "",
             f"Student BERT {study.model}, teacher BERT {study.teacher_model} ({teacher}), text: "
             f"{study.data}, tasks: {', '.join(names_in(found.kinds[0], 'task'))}. All students "
             "see the same blocks and masks in the same order, begin with the same weights for a "
             f"seed (those with `{COPIED}` with layers of the teacher), and are fine-tuned alike. "
             "A distilled one pays for its teacher's forward passes. "
             f"{len(found.outcomes)}{missing} students.", "",
             *first_page(study, found), *budget_section(study, found), *controls_section(found),
             *scores_section(found), "## The bill", "", "![bill](bill.png)", "",
             *limits_section(study, found), *making_section(found, command),
             *(f"Failed cell: {name}: {line}\n" for name, line in dict(failed).items())]
    disk.write_file(study.out / "report.md", "\n".join(lines))
    for row in found.pooled:
        cli.say(f"{setting_of(row)}, {row['strategy']}: {difference_words(row['difference'])} "
                f"points more than scratch{', depending on the budget' * row['depends']}")
    cli.say(" ".join(advice(study, found)))
    cli.say(f"report      {study.out / 'report.md'} (figures, results.csv and students.zip beside "
            "it)")
