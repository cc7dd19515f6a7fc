"""report.md: the answer (reporting/answer.py), and what it rests on.

`compare.py` runs the cells, reporting/findings.py makes numbers of what they left behind, and this
file puts them into words.
"""
import csv
import io
import shlex
import statistics

from files import disk
from plumbing import cli
from program.options import COPIED

from measure import skills
from measure.statistics import LEAST_PAIRS, break_even
from reporting import answer, findings, handin
from reporting.figures import draw_bill, draw_forest, draw_scores
from reporting.findings import is_told_apart
from reporting.words import data_setting, difference_words, listed, plus_minus, spell

# --------------------------------------------------------------------------------------------------
# The tables


def rows_table(rows, tasks):
    """The rows as a table of Markdown."""
    heads = ["data", "FLOPs", "strategy", "tokens", "epochs", "MLM loss",
             "training below 0.9 unigram", *tasks, "score", "to scratch", "verdict"]
    has_multipliers = any(row["multiplier"] for row in rows)
    if has_multipliers:
        heads.append("compute multiplier")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        loss = plus_minus(row["val_loss"], None, 3) or "no head"
        values = [data_setting(row["unique_tokens"]), cli.flops(row["flops"]), row["strategy"],
                  cli.flops(row["tokens"]), f"{row['epochs']:.3g}",
                  loss + (" (plateau)" if row["plateau"] else ""), exit_words(row),
                  *(f"{row['tasks'][task]:.1f}" for task in tasks),
                  plus_minus(row["score"], row["half"]),
                  difference_words(row), row["verdict"]]
        if has_multipliers:
            values.append(multiplier_words(row))
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)


def exit_words(row):
    """'8.1e+11 (11 of 12)': the median FLOPs at which students left the plateau, and how many.
    Nothing where they have no head."""
    if not row["loss_by_seed"]:
        return ""
    if row["exit"] is None:
        return f"none of {row['seeds']}"
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
        text += f" ({difference_words(row)} points; n = {row['pairs']})"
    if not row["pairs"]:
        return f"{text}no student from scratch to compare with."
    # A multiplier within the noise says nothing, and a curve of one point has none.
    if not row["multiplier"] or not is_told_apart(row):
        return f"{text}."
    return f"{text}; {budget_words(*row['multiplier'])}{break_even_words(row, args)}."


def budget_words(sign, kappa):
    """A compute multiplier in words."""
    if sign == "=":
        return f"scratch needs {kappa:.2g} times the budget to score the same"
    if sign == "<" and kappa == 1:
        return "scratch scores more, and no smaller budget of it was measured"
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
            "nothing else of it. A distillation that is not ahead of it is not shown to give more "
            "than this copy, which costs nothing. `kd-released` divides KD's term by the size of "
            "the vocabulary.", "", *lines, ""]


def control_line(row):
    """A student, its control, the verdict and the difference."""
    words = row["verdict"].replace("scratch", row["control"])
    return (f"- {row['strategy']} against {row['control']}, "
            f"{data_setting(row['unique_tokens'])}, {cli.flops(row['flops'])} FLOPs: {words} "
            f"({difference_words(row)} points)")


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
    return ["## Skills", "",
            "A score on these tasks is a switch: a student can do the task, or is right as often "
            "as a coin. So here is how many students have the skill, with Wilson's 95% interval of "
            "the share in percent. A student has it where its score lies beyond half of the way "
            "from an untrained network to the teacher of the gate (points above the majority "
            f"answer: {bounds}).{how_compared(rows)}", "", *lines, ""]


def how_compared(rows):
    """How the shares were compared with scratch's. Nothing where scratch is alone."""
    tests = [row["test"] for row in rows if row["strategy"] != "scratch"]
    names = {"McNemar": "McNemar's exact test of the pairs",
             "Fisher": "Fisher's exact test where no seed has both"}
    used = [words for test, words in names.items() if test in tests]
    sentences = []
    if used:
        n = sum(test is not None for test in tests)
        sentences = [f" Bold: another share than scratch's, by {listed(used)}, corrected for "
                     f"{cli.counted(n, 'comparison')} (Holm)."]
    if None in tests:
        sentences.append(f" Fewer than {LEAST_PAIRS} pairs are not compared: they cannot tell two "
                         "shares apart.")
    return "".join(sentences)


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
    share = 100 * (within / k) / (between + within / k)
    return ["## Where the spread comes from", "",
            "On a task, fine-tunings of one student have a standard deviation of "
            f"{within ** 0.5:.1f} points. Students that differ in their seed alone have one of "
            f"{between ** 0.5:.1f}, with the noise of fine-tuning taken out. A student's score is "
            f"the mean of {k} fine-tunings, so fine-tuning is {share:.0f}% of its variance.", ""]


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
    sentences = answer.answer(args, rows, pooled, beside)
    if pooled:
        draw_forest(pooled, args, args.out)
    else:  # an earlier report may have had one
        for kind in ("png", "svg"):
            (args.out / f"forest.{kind}").unlink(missing_ok=True)
    draw_scores(rows, args, args.out, findings.levels_of(outcomes, teacher))
    draw_bill(rows, args, args.out)
    lines = [*title(args, rows, cells, outcomes), *answer.section(args, sentences, pooled),
             *budget_section(args, rows), *controls_section(beside),
             *skills_section(args, findings.skills_of(args, outcomes)),
             *table_section(args, rows),
             *spread_section(args, outcomes), *rates_section(args, tried),
             *limits_section(args, rows, tried, findings.silent_tasks(rows, outcomes)),
             *making_section(args, outcomes, command),
             *failures_section(failed)]
    disk.write_file(args.out / "report.md", "\n".join(lines))
    if command is None:  # cells that were collected have no line
        disk.write_file(args.out / "cells.txt", cells_text(teacher_cell, cells))
    hand_in(args, outcomes, teacher)
    print_rows(args, rows)
    cli.say("\n" + "\n".join(sentences).replace("**", ""))
    cli.say(f"report      {args.out / 'report.md'} ({'forest.png, ' if pooled else ''}scores.png, "
            "bill.png, results.csv, students.zip beside it)")


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
            f"blocks and masks in the same order, {first_weights(args)}, and are fine-tuned alike. "
            "A distilled one pays for its teacher's forward passes. "
            f"{numbers(rows, cells, outcomes)}", ""]


def first_weights(args):
    """What the students begin with."""
    words = "begin with the same weights for a seed"
    copied = [strategy for strategy in args.strategies if strategy.endswith(COPIED)]
    if copied:
        words += f" (those of {listed(copied)} with layers of the teacher)"
    return words


def numbers(rows, cells, outcomes):
    """How many students there are, of how many, and how many of each kind."""
    seeds = sorted({row["seeds"] for row in rows})
    each = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    missing = f" of {len(cells)}" if len(outcomes) < len(cells) else ""
    return f"{len(outcomes)}{missing} students, {each} of a kind."


def table_section(args, rows):
    return ["## Table", "",
            "Scores in points, mean over seeds ± half of the 95% interval (Student's t). `to "
            "scratch`: mean of the differences, over the seeds that both have. `(plateau)`: the "
            "validation loss of a student ended less than a tenth below the unigram loss. "
            "`training below 0.9 unigram`: the median FLOPs at which a training loss fell below "
            f"0.9 of the unigram loss, and how many did.{multiplier_note(rows)}", "",
            rows_table(rows, list(rows[0]["tasks"])), "",
            "Where the teacher exists already, or serves many students, you need not pay for its "
            f"training.{break_even_note(args)} Busbridge et al. 2025 (Distillation Scaling Laws) "
            "find: distil when a teacher exists or serves several students, else train from "
            "scratch.", "",
            "## The bill", "", "![bill](bill.png)", ""]


def multiplier_note(rows):
    """What the table's last column is, where there is one."""
    if not any(row["multiplier"] for row in rows):
        return ""
    return (" `compute multiplier`: how many times the budget scratch needs for the same score, "
            "read off scratch's own curve. It is given where the two are told apart. > and < say "
            "that scratch reaches the score beyond the budgets that were measured, if at all.")


def break_even_note(args):
    """Where to read when a teacher pays off. A single budget has no curve to tell it from."""
    if len(args.budgets) == 1 or not args.teacher_flops:
        return ""
    return ' Where you do pay, "Budget by budget" says from how many students on it pays off.'


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


def limits_section(args, rows, tried, silent):
    """What the comparison cannot say. silent: of findings.silent_tasks."""
    seeds = "1 seed: it does not show how much of a difference is luck."
    if args.seeds > 1:
        seeds = f"{args.seeds} seeds: differences smaller than the intervals are not seen."
    epochs = max(row["epochs"] for row in rows)
    repetitions = "repeated data: here no token was read twice."
    if epochs > 1:
        repetitions = f"more repetitions than {epochs:.3g} epochs."
    return ["## What would change this", "",
            f"- {seeds}",
            *silent_lines(silent),
            f"- One schedule, and learning rates {rates_in_words(args, tried)}.",
            "- Budgets at which students sit on the plateau (marked in the table) say little about "
            "what comes after.",
            f"- Another teacher, other tasks, or {repetitions}", ""]


def silent_lines(tasks):
    """What is said of tasks that no kind of students can do."""
    if not tasks:
        return []
    return [f"- {listed(tasks)}: no kind of students has a mean of a point more than guessing. A "
            "difference there is one between ways to guess."]


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
            f"and of fine-tuning a cell: {', '.join(seconds_of(args, outcomes))}. "
            f"{'; '.join(machines_of(outcomes))}.{lines}", ""]


def machines_of(outcomes):
    """What the students were trained with and on, in words, each way once."""
    ways = {}
    for outcome in outcomes.values():
        record = outcome["record"]
        versions = record["versions"]
        ways[f"Python {versions['python']}, torch {versions['torch']}, {record['machine']}, "
             f"{cli.counted(record['threads'], 'thread')} a cell"] = True
    return sorted(ways)


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
        difference = difference_words(row)
        cli.say(f"{data_setting(row['unique_tokens']):22} {cli.flops(row['flops']):>7} "
                f"{row['strategy']:{width}} {score:>14} {loss:11} {difference:>14} "
                f"{row['verdict']}")
