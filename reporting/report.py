"""report.md: the answer in three sentences and one figure, and what it rests on.

`compare.py` runs the cells, reporting/findings.py makes numbers of what they left behind, and this
file puts them into words.
"""
import csv
import io
import platform
import shlex
import statistics
from importlib.metadata import version

from plumbing import cli, disk

from measure import skills
from measure.statistics import MARGIN, break_even
from reporting import findings, handin
from reporting.figures import draw_bill, draw_forest, draw_scores
from reporting.findings import is_told_apart
from reporting.words import data_setting, listed, plus_minus, spell

# --------------------------------------------------------------------------------------------------
# The tables


def rows_table(rows, tasks):
    """The rows as a table of Markdown."""
    heads = ["data", "FLOPs", "strategy", "tokens", "epochs", "MLM loss", "left the plateau",
             *tasks, "score",
             "to scratch", "verdict", "compute multiplier"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        loss = plus_minus(row["val_loss"], None, 3) or "no head"
        values = [data_setting(row["unique_tokens"]), cli.flops(row["flops"]), row["strategy"],
                  cli.flops(row["tokens"]), f"{row['epochs']:.3g}",
                  loss + (" (plateau)" if row["plateau"] else ""), exit_words(row),
                  *(f"{row['tasks'][task]:.1f}" for task in tasks),
                  plus_minus(row["score"], row["half"]),
                  plus_minus(row["difference"], row["difference_half"]), row["verdict"],
                  multiplier_words(row)]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)


def exit_words(row):
    """'8.1e+11 (11 of 12)': the median FLOPs at which students left the plateau, and how many."""
    if row["exit"] is None:
        return ""
    return f"{cli.flops(row['exit'])} ({row['exits']} of {row['seeds']})"


def multiplier_words(row):
    """'1.9', '> 10' or '< 0.5'; nothing where the difference may be noise."""
    if not is_told_apart(row) or not row["multiplier"]:
        return ""
    sign, kappa = row["multiplier"]
    return f"{kappa:.2g}" if sign == "=" else f"{sign} {kappa:.2g}"


def results_csv(outcomes):
    """results.csv: one line for each cell, task, part and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["strategy", "flops", "unique_tokens", "seed", "lr", "task", "part", "metric",
                     "score", "val_loss", "flops_spent", "tokens", "epochs"])
    for cell, outcome in outcomes.items():
        record = outcome["record"]
        loss = "" if record["val_loss"] is None else f"{record['val_loss']:.6f}"
        student = [cell.strategy, cell.flops, cell.unique_tokens or "inf", cell.seed,
                   f"{record['settings']['lr']:.6g}"]
        spent = [record["flops_spent"], record["tokens"], f"{record['epochs']:.4f}"]
        for task, result in outcome["results"].items():
            for part, metrics in result["metrics"].items():
                for metric, (value, _) in metrics.items():
                    score = [task, part, metric, f"{value:.6f}"]
                    writer.writerow([*student, *score, loss, *spent])
    return out.getvalue()


# --------------------------------------------------------------------------------------------------
# The answer


def answer(args, pooled, beside):
    """The answer in a sentence for each data setting, and one on what it means. pooled, beside:
    rows of findings.pooled_of and of findings.controls_of."""
    sentences = []
    for unique in args.unique_tokens:
        own = [row for row in pooled if row["unique_tokens"] == unique]
        if own:
            sentences.append(f"With {data_setting(unique)}, {listed(clauses(own))}.")
    return [*sentences, conclusion(args, pooled, beside)]


def clauses(rows):
    """What the pooled differences of a data setting say, as parts of a sentence: a part for each
    that is resolved, and one for all others."""
    parts, unresolved = [], []
    for row in rows:
        if part := clause(row):
            parts.append(part)
        else:
            difference = plus_minus(row["difference"], row["difference_half"])
            unresolved.append(f"{row['strategy']} ({difference})")
    if unresolved:
        verb = "is" if len(unresolved) == 1 else "are"
        parts.append(f"{listed(unresolved)} {verb} not told apart from scratch")
    return parts


def clause(row):
    """What one pooled difference says, where it is resolved. None where it is not."""
    points = plus_minus(abs(row["difference"]), row["difference_half"])
    if row["verdict"].startswith("ahead"):
        return f"**{row['strategy']} scores {points} points more than scratch**"
    if row["verdict"].startswith("behind"):
        return f"**{row['strategy']} scores {points} points less than scratch**"
    difference = plus_minus(row["difference"], row["difference_half"])
    if row["verdict"].startswith("equal"):
        return (f"**{row['strategy']} and scratch are equal within {MARGIN:g} points** "
                f"({difference})")
    return None


def conclusion(args, pooled, beside):
    """What the verdicts mean for somebody who has a budget."""
    ahead = list(dict.fromkeys(row["strategy"] for row in pooled
                               if row["verdict"].startswith("ahead")))
    if ahead:
        return f"So, with a teacher at hand, {advice(ahead, beside)}{price_of_teacher(args)}."
    if any(is_told_apart(row) or row["verdict"].startswith("equal") for row in pooled):
        words = "So nothing here speaks for distillation at these budgets: pretrain from scratch, "
        return f"{words}and save yourself the teacher.{still_open(pooled)}"
    if not pooled:
        return "Only scratch was run: there is nothing to compare it with."
    return "More seeds are needed before this says what to do."


def still_open(pooled):
    """Which strategies may still turn out to be ahead, as a sentence, or nothing."""
    names = dict.fromkeys(row["strategy"] for row in pooled
                          if row["verdict"].startswith("not told apart"))
    return f" More seeds may tell {listed(list(names))} apart from it." if names else ""


def advice(ahead, beside):
    """What to do with a teacher, where these strategies are ahead of scratch. Where copied layers
    alone are, too, distilling is advised only where it is ahead of them."""
    if findings.ONLY_COPIED not in ahead:
        return f"distil with {listed(ahead, 'or')}"
    better = [strategy for strategy in ahead if beats(strategy, beside)]
    copy = f"begin with layers copied from it ({findings.ONLY_COPIED})"
    if better:
        return (f"distil with {listed(better, 'or')}, or {copy}: no other is seen to give more "
                "than those")
    return f"{copy}: no distillation is seen to give more than those"


def beats(strategy, beside):
    """Whether a strategy is ahead of copied layers alone wherever both were run."""
    verdicts = [row["verdict"] for row in beside
                if (row["strategy"], row["control"]) == (strategy, findings.ONLY_COPIED)]
    return bool(verdicts) and all(words.startswith("ahead") for words in verdicts)


def price_of_teacher(args):
    """What the conclusion says of the teacher's price: nothing where it is not known."""
    if not args.teacher_flops:
        return ""
    if len(args.budgets) > 1:
        return (f"; if you have to train the teacher first ({cli.flops(args.teacher_flops)} "
                "FLOPs), the table says how many students pay for it")
    students = args.teacher_flops / args.budgets[0]
    return (f"; if you have to train the teacher first, that costs as much as {students:,.0f} "
            "students")


def answer_section(args, rows, pooled, beside):
    """The first page: the sentences, and the figure that shows them."""
    seeds = max(row["seeds"] for row in rows)
    few = " **These are few: take it as a demonstration.**" if seeds < 6 else ""
    budgets = listed([cli.flops(C) for C in args.budgets])
    where = f"at {budgets} FLOPs"
    if len(args.budgets) > 1:
        where = f"as means over the budgets ({budgets} FLOPs)"
    return [" ".join(answer(args, pooled, beside)), "", "![differences to scratch](forest.png)", "",
            f"Points of the score, {where}, with 95% intervals (Student's t, paired by seed; "
            f"{cli.counted(seeds, 'student')} of each kind at each budget).{few} A verdict is "
            f"given where it holds after correction for all {len(pooled)} rows (Holm). *Equal* "
            f"means that the whole interval lies within {MARGIN:g} points of zero.", "",
            *[pooled_line(row) for row in pooled], ""]


def pooled_line(row):
    difference = plus_minus(row["difference"], row["difference_half"])
    return (f"- **{row['strategy']}, {data_setting(row['unique_tokens'])}**: {row['verdict']} "
            f"({difference} points{p_words(row)})")


def p_words(row):
    """The corrected p-value, in words."""
    p = row["corrected_p"]
    if p is None:
        return ""
    return "; p < 0.001" if p < 0.001 else f"; p = {p:.2g}"


# --------------------------------------------------------------------------------------------------
# Budget by budget


def budget_section(args, rows):
    """One line for each strategy, data setting and budget, and the curves. Of a single budget the
    answer has said all but what single students score."""
    if len(args.budgets) == 1:
        return ["## Student by student", "", "![scores](scores.png)", ""]
    lines = [budget_line(row, args) for row in rows if row["strategy"] != "scratch"]
    n = sum(row["pairs"] > 1 for row in rows)
    note = []
    if n > 1:
        note = ["", f"The verdicts are corrected for all {n} of them (Holm)."]
    return ["## Budget by budget", "", *lines, *note, "", "![scores](scores.png)", ""]


def budget_line(row, args):
    """Verdict and difference, and where they are told apart the multiplier."""
    data, C = data_setting(row["unique_tokens"]), cli.flops(row["flops"])
    text = f"- **{row['strategy']}, {data}, {C} FLOPs**: {row['verdict']}"
    if row["difference"] is not None:
        text += f" ({plus_minus(row['difference'], row['difference_half'])} points)"
    if row["multiplier"] is None:
        return f"{text}; no scratch student to compare with."
    # A multiplier within the noise says nothing, and a curve of one point has none.
    if len(args.budgets) < 2 or not is_told_apart(row):
        return f"{text}."
    return f"{text}; {budget_words(*row['multiplier'])}{break_even_words(row, args)}."


def budget_words(sign, kappa):
    """A compute multiplier in words."""
    if sign == "=":
        return f"scratch needs {kappa:.2g} times the budget to score the same"
    if sign == "<":
        return f"scratch scores the same with less than {kappa:.2g} times the budget"
    if kappa > 1.01:
        return f"scratch does not reach its score within {kappa:.2g} times the budget"
    return "scratch does not reach its score, and no larger budget was measured"


def break_even_words(row, args):
    """From how many students on the teacher's training is paid for."""
    sign, kappa = row["multiplier"]
    n = break_even(args.teacher_flops, kappa, row["flops"])
    if sign == "<" or not n:
        return ""
    bound = ", if not before" if sign == ">" else ""  # kappa is a lower bound, so n is an upper one
    return ("; if you also pay for training the teacher, it pays off once you distil "
            f"{n:,} students{bound}")


def controls_section(beside):
    """A line for each student and the control that it should beat. Nothing where none was run."""
    if not beside:
        return []
    lines = [control_line(row) for row in beside]
    n = sum(row["pairs"] > 1 for row in beside)
    if n > 1:
        lines += ["", f"These verdicts are corrected for all {n} of them (Holm)."]
    return ["## Against the controls", "",
            f"`{findings.ONLY_COPIED}` begins with layers copied from the teacher and reads "
            "nothing else of it: what is not ahead of it owes the teacher no more than layers. "
            "`kd-released` divides KD's term by the size of the vocabulary.", "", *lines, ""]


def control_line(row):
    """A student, its control, the verdict and the difference."""
    words = row["verdict"].replace("scratch", row["control"])
    return (f"- {row['strategy']} against {row['control']}, "
            f"{data_setting(row['unique_tokens'])}, {cli.flops(row['flops'])} FLOPs: {words} "
            f"({plus_minus(row['difference'], row['difference_half'])} points)")


# --------------------------------------------------------------------------------------------------
# Skills and spread


def skills_section(args, rows):
    """How many students can do each embedded task. Nothing for other tasks."""
    if not rows:
        return []
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    heads = ["data", "FLOPs", "strategy", *tasks]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    kinds = dict.fromkeys((row["unique_tokens"], row["flops"], row["strategy"]) for row in rows)
    for unique, C, strategy in kinds:
        own = {row["task"]: row for row in rows
               if (row["unique_tokens"], row["flops"], row["strategy"]) == (unique, C, strategy)}
        cells = [data_setting(unique), cli.flops(C), strategy,
                 *(skill_words(own[task]) for task in tasks)]
        lines.append(f"| {' | '.join(cells)} |")
    bounds = listed([f"{task} {skills.threshold(task):.0f}" for task in tasks])
    n = sum(row["p"] is not None for row in rows)
    return ["## Skills", "",
            "A score on these tasks is a switch: a student can do the task, or is right as often "
            "as a coin. So here is how many students have the skill, with Wilson's 95% interval of "
            "the share in percent. A student has it whose score lies half way from an untrained "
            f"network to the teacher of the gate (points above the majority answer: {bounds}). "
            f"Bold: another share than scratch's, by McNemar's exact test of the pairs, corrected "
            f"for all {n} comparisons (Holm).", "", *lines, ""]


def skill_words(row):
    """'7 of 12 [32, 81]', bold where it is told apart from scratch."""
    low, high = row["interval"]
    words = f"{row['k']} of {row['n']}"
    if row["told_apart"]:
        words = f"**{words}**"
    return f"{words} [{100 * low:.0f}, {100 * high:.0f}]"


def spread_section(args, outcomes):
    """How much of the spread is fine-tuning. Nothing where each student was fine-tuned once."""
    spread = findings.spread_of(args, outcomes)
    if spread is None:
        return []
    between, within = spread
    k = args.glue_seeds
    share = 100 * (within ** 2 / k) / (between ** 2 + within ** 2 / k)
    return ["## Where the spread comes from", "",
            f"Two students that differ in their seed alone have scores on a task that differ with "
            f"a standard deviation of {between:.1f} points, and two fine-tunings of one student "
            f"with {within:.1f}. A student's score is the mean of {k} fine-tunings, so fine-tuning "
            f"is {share:.0f}% of the variance.", ""]


# --------------------------------------------------------------------------------------------------
# report.md


def write(args, teacher_cell, cells, outcomes, tried, failed, command=None, teacher=None):
    """Writes report.md, results.csv and the figures of the finished cells into args.out, and prints
    what the report says first.

    outcomes: {Cell: outcome} of the finished ones among `cells`; tried, failed: from cells.py;
    command: the line that made the report, where it is not the comparison's own; teacher: the
    teacher's own outcome, where it is known."""
    outcomes = findings.with_exits(outcomes)
    rows = findings.rows_of(args, outcomes)
    if not rows:
        cli.say("no cell is finished: there is nothing to report")
        return
    disk.write_file(args.out / "results.csv", results_csv(outcomes))
    pooled, beside = findings.pooled_of(args, rows), findings.controls_of(args, outcomes)
    draw_forest(pooled, args, args.out)
    draw_scores(rows, args, args.out, findings.levels_of(outcomes, teacher))
    draw_bill(rows, args, args.out)
    lines = [*title(args, rows, cells, outcomes), *answer_section(args, rows, pooled, beside),
             *budget_section(args, rows), *controls_section(beside),
             *skills_section(args, findings.skills_of(args, outcomes)), *table_section(rows),
             *spread_section(args, outcomes), *rates_section(args, tried),
             *limits_section(args, rows, tried),
             *making_section(args, outcomes, command),
             *failures_section(failed)]
    disk.write_file(args.out / "report.md", "\n".join(lines))
    if command is None:  # cells that were collected have no line
        disk.write_file(args.out / "cells.txt", cells_text(teacher_cell, cells))
    hand_in(args, outcomes, teacher)
    print_rows(args, rows)
    cli.say("\n" + "\n".join(answer(args, pooled, beside)).replace("**", ""))
    cli.say(f"report      {args.out / 'report.md'} (forest.png, scores.png, bill.png, results.csv, "
            "students.zip beside it)")


def hand_in(args, outcomes, teacher):
    """Writes students.zip."""
    students = {cell.folder: outcome["record"] for cell, outcome in outcomes.items()}
    scored = None
    if teacher:
        scored = teacher["record"], teacher.get("folder", args.out / handin.SCORES)
    handin.pack(args.out, args.settings, students, scored)


def title(args, rows, cells, outcomes):
    """What was compared."""
    teacher = args.teacher or f"trained here with {cli.flops(args.teacher_flops)} FLOPs"
    return ["# From scratch or distilled, at equal compute?", "",
            f"Student BERT {args.model}, teacher BERT {args.teacher_model} ({teacher}), "
            f"text: {args.data}, tasks: {', '.join(rows[0]['tasks'])}. All students see the same "
            "blocks and masks in the same order, begin with the same weights for a seed, and are "
            "fine-tuned alike. A distilled one pays for its teacher's forward passes. "
            f"{len(outcomes)} of {len(cells)} cells.", ""]


def table_section(rows):
    return ["## Table", "",
            "Scores in points, mean over seeds ± half of the 95% interval (Student's t). `to "
            "scratch`: mean of the differences paired by seed. `compute multiplier`: how many "
            "times the budget scratch needs for the same score, read off scratch's own curve. It "
            "is given where the two are told apart. > and < say that scratch reaches the score "
            "beyond the budgets that were measured, if at all. `left the plateau`: the median "
            "FLOPs at which the training loss fell below 0.9 of the unigram loss, and how many "
            "students got there.", "",
            rows_table(rows, list(rows[0]["tasks"])), "",
            "Where the teacher exists already, or serves many students, you need not pay for its "
            "training. Where you do pay, the break-even says how many students it takes to pay "
            "off. Busbridge et al. 2025 (Distillation Scaling Laws) find: distil when a teacher "
            "exists or serves several students, else train from scratch.", "",
            "## The bill", "", "![bill](bill.png)", ""]


def rates_section(args, tried):
    """How the learning rates were chosen. Nothing without --lr-grid."""
    if not tried:
        return []
    spent = cli.flops(len(tried) * args.budgets[0])
    lines = [f"| {strategy} | {lr:g} | {100 * score:.1f} |" for strategy, lr, score in tried]
    return ["## Learning rates", "",
            f"Chosen by development score at {cli.flops(args.budgets[0])} FLOPs, "
            f"{data_setting(args.unique_tokens[0])}, seed 0 ({spent} FLOPs of tries).", "",
            "| strategy | rate | development score |", "|---|---|---|", *lines, ""]


def limits_section(args, rows, tried):
    """What the comparison cannot say."""
    seeds = "1 seed: it does not show how much of a difference is luck."
    if args.seeds > 1:
        seeds = f"{args.seeds} seeds: differences smaller than the intervals are not seen."
    epochs = max(row["epochs"] for row in rows)
    return ["## What would change this", "",
            f"- {seeds}",
            f"- One schedule, and learning rates {rates_in_words(args, tried)}.",
            "- Budgets at which students sit on the plateau (marked in the table) compare little "
            "but luck.",
            f"- Another teacher, other tasks, or more repetitions than {epochs:.3g} epochs.", ""]


def rates_in_words(args, tried):
    """For which strategies a learning rate was chosen."""
    if not tried and "=" not in str(args.lr):
        return "equal for all strategies"
    given = [word.partition("=")[0] for word in str(args.lr).split(",")]
    default = [] if tried else [strategy for strategy in args.strategies if strategy not in given]
    if default:
        return f"chosen per strategy (train.py's default for {listed(default)})"
    return "chosen per strategy"


def making_section(args, outcomes, command):
    """The command, the settings that all share, and how long a cell took. command: as in write."""
    lines = "" if command else " Every cell as a line of shell: [cells.txt](cells.txt)."
    records = [outcome["record"] for cell, outcome in outcomes.items()
               if cell.strategy == "scratch"]
    record = (records or [outcome["record"] for outcome in outcomes.values()])[0]
    settings = record["settings"]
    return ["## How it was made", "", "```bash", command or command_of(args), "```", "",
            f"T = {settings['seq_len']}, B = {settings['batch_size']}, lr {settings['lr']:.3g} "
            f"(scratch), betas {settings['betas']}, {settings['dtype']}. Seconds of pretraining "
            f"and of fine-tuning a cell: {', '.join(seconds_of(args, outcomes))}. Python "
            f"{platform.python_version()}, torch {version('torch')}; {record['machine']}, "
            f"{record['threads']} threads a cell.{lines}", ""]


def seconds_of(args, outcomes):
    """For each strategy its mean seconds of pretraining and of fine-tuning, in words."""
    words = []
    for strategy in args.strategies:
        own = [outcome for cell, outcome in outcomes.items() if cell.strategy == strategy]
        if own:
            pretraining = statistics.mean(outcome["record"]["seconds"] for outcome in own)
            fine_tuning = statistics.mean(
                sum(result["seconds"] for result in outcome["results"].values())
                for outcome in own)
            words.append(f"{strategy} {pretraining:.0f} and {fine_tuning:.0f}")
    return words


def failures_section(failed):
    """The cells that failed."""
    if not failed:
        return []
    failures = "; ".join(f"{name}: {line}" for name, line in failed.items())
    return [f"Failed cells: {failures}", ""]


def cells_text(teacher_cell, cells):
    """cells.txt: all cells as lines of shell."""
    lines = [teacher_cell.line] if teacher_cell else []
    lines += [cell.line for cell in cells]
    return "\n".join(lines) + "\n"


def command_of(args):
    """The comparison's own command, with every option spelled out."""
    rates = args.lr_grid and ",".join(f"{lr:g}" for lr in args.lr_grid)
    tokens = ["inf" if unique is None else spell(unique) for unique in args.unique_tokens]
    options = {
        "strategies": ",".join(args.strategies), "budgets": ",".join(map(spell, args.budgets)),
        "unique-tokens": ",".join(tokens), "seeds": args.seeds,
        "first-seed": args.first_seed or None, "model": args.model, "teacher": args.teacher,
        "head-teacher": args.head_teacher,
        "teacher-model": None if args.teacher else args.teacher_model,
        "teacher-flops": spell(args.teacher_flops), "data": args.data,
        "glue-data": args.glue_data, "glue-grid": args.glue_grid, "tasks": args.tasks,
        "glue-seeds": args.glue_seeds, "lr": args.lr, "lr-grid": rates,
        "train-options": args.train_options or None,
        "distil-options": args.distil_options or None,
        "glue-options": args.glue_options or None, "out": args.out}
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return shlex.join(["python", "compare.py", *words])


def print_rows(args, rows):
    """The rows on the screen."""
    width = max(len(row["strategy"]) for row in rows)
    for row in rows:
        loss = "" if row["val_loss"] is None else f"loss {row['val_loss']:.3f}"
        score = plus_minus(row["score"], row["half"])
        difference = plus_minus(row["difference"], row["difference_half"])
        cli.say(f"{data_setting(row['unique_tokens']):22} {cli.flops(row['flops']):>7} "
                f"{row['strategy']:{width}} {score:>14} {loss:11} {difference:>14} "
                f"{row['verdict']}")
