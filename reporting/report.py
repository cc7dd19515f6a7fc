"""What a comparison found: one row for each kind of student, and report.md about the rows.

`compare.py` runs the cells, and this file reads what they left behind. Differences to scratch are
paired by seed: the students of one seed saw the same blocks and masks, and began with the same
weights. The mean of the differences has a 95% interval by Student's t. A verdict is given only
where the interval does not contain zero (measure/statistics.py).
"""
import csv
import io
import platform
import shlex
import statistics
from importlib.metadata import version

from plumbing import cli, disk

from measure.scores import score_of
from measure.statistics import break_even, compute_multiplier, interval, verdict
from reporting.card import on_plateau
from reporting.figures import draw_bill, draw_scores
from reporting.words import data_setting, plus_minus, spell

# --------------------------------------------------------------------------------------------------
# The rows: one for each data setting, budget and strategy


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
    return rows


def students_of(args, outcomes, unique_tokens, flops, strategy):
    """{seed: outcome} of the finished students of one kind, in the order of the seeds."""
    kind = (unique_tokens, flops, strategy)
    by_seed = {cell.seed: outcome for cell, outcome in outcomes.items()
               if (cell.unique_tokens, cell.flops, cell.strategy) == kind}
    return {seed: by_seed[seed] for seed in args.seed_numbers if seed in by_seed}


def points_of(students):
    """{seed: score in points of 100}."""
    return {seed: 100 * score_of(outcome["results"]) for seed, outcome in students.items()}


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
    return {"val_loss": mean, "loss_half": half, "loss_by_seed": losses,
            "plateau": any(on_plateau(record) for record in records.values())}


def compared_columns(row, scratch, curve):
    """What a row says of its difference to scratch. scratch: {seed: points} of the same data and
    budget; curve: as in compute_multiplier."""
    columns = {"difference": None, "difference_half": None, "pairs": 0, "verdict": "",
               "multiplier": None}
    if row["strategy"] == "scratch":
        return columns
    points = row["by_seed"]
    differences = [points[seed] - scratch[seed] for seed in points if seed in scratch]
    if differences:
        mean, half = interval(differences)
        columns |= {"difference": mean, "difference_half": half, "pairs": len(differences),
                    "verdict": verdict(mean, half, len(differences))}
    if curve:
        columns["multiplier"] = compute_multiplier(curve, row["flops"], row["score"])
    return columns


def is_told_apart(row):
    """Whether the row's students differ from scratch by more than the noise."""
    return row["verdict"].startswith(("ahead", "behind"))


# --------------------------------------------------------------------------------------------------
# The tables


def rows_table(rows, tasks):
    """The rows as a table of Markdown."""
    heads = ["data", "FLOPs", "strategy", "tokens", "epochs", "MLM loss", *tasks, "score",
             "to scratch", "verdict", "compute multiplier"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        loss = plus_minus(row["val_loss"], None, 3) or "no head"
        values = [data_setting(row["unique_tokens"]), cli.flops(row["flops"]), row["strategy"],
                  cli.flops(row["tokens"]), f"{row['epochs']:.3g}",
                  loss + (" (plateau)" if row["plateau"] else ""),
                  *(f"{row['tasks'][task]:.1f}" for task in tasks),
                  plus_minus(row["score"], row["half"]),
                  plus_minus(row["difference"], row["difference_half"]), row["verdict"],
                  multiplier_words(row)]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)


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
# The answers


def answers(rows, args):
    """The question's answers in words, one for each strategy, data setting and budget."""
    lines = [answer(row, args) for row in rows if row["strategy"] != "scratch"]
    n = sum(row["pairs"] > 1 for row in rows)
    if n:
        lines.append(f"\nOf {n} such comparisons, {n / 20:.1f} are expected to look told apart by "
                     "chance alone (95% intervals).")
    return "\n".join(lines)


def answer(row, args):
    """One answer: verdict and difference, and where they are told apart the multiplier."""
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


def released(args, outcomes):
    """`kd` against `kd-released`, paired by seed, where both were run: is KD better if its loss is
    not divided by the size of the vocabulary?"""
    lines = []
    for unique in args.unique_tokens:
        for C in args.budgets:
            kd = points_of(students_of(args, outcomes, unique, C, "kd"))
            other = points_of(students_of(args, outcomes, unique, C, "kd-released"))
            differences = [kd[seed] - other[seed] for seed in kd if seed in other]
            if not differences:
                continue
            mean, half = interval(differences)
            words = verdict(mean, half, len(differences)).replace("scratch", "kd-released")
            lines.append(f"- kd against kd-released, {data_setting(unique)}, {cli.flops(C)} FLOPs: "
                         f"{words} ({plus_minus(mean, half)} points)")
    return lines


# --------------------------------------------------------------------------------------------------
# report.md


def write(args, teacher_cell, cells, outcomes, tried, failed, command=None):
    """Writes report.md, results.csv and the figures of the finished cells into args.out, and prints
    what the report says first.

    outcomes: {Cell: outcome} of the finished ones among `cells`; tried, failed: from cells.py;
    command: the line that made the report, where it is not the comparison's own."""
    rows = rows_of(args, outcomes)
    if not rows:
        cli.say("no cell is finished: there is nothing to report")
        return
    disk.write_file(args.out / "results.csv", results_csv(outcomes))
    draw_scores(rows, args, args.out)
    draw_bill(rows, args, args.out)
    lines = [*title(args, rows, cells, outcomes), *answers_section(args, rows, outcomes),
             *table_section(rows), *rates_section(args, tried), *limits_section(args, rows, tried),
             *making_section(args, outcomes, command or command_of(args)),
             *cells_section(teacher_cell, cells, failed)]
    disk.write_file(args.out / "report.md", "\n".join(lines))
    print_rows(args, rows)


def title(args, rows, cells, outcomes):
    """What was compared."""
    teacher = args.teacher or f"trained here with {cli.flops(args.teacher_flops)} FLOPs"
    return ["# From scratch or distilled, at equal compute?", "",
            f"Student BERT {args.model}, teacher BERT {args.teacher_model} ({teacher}), "
            f"text: {args.data}, tasks: {', '.join(rows[0]['tasks'])}. All students see the same "
            "blocks and masks in the same order, begin with the same weights for a seed, and are "
            "fine-tuned alike. A distilled one pays for its teacher's forward passes. "
            f"{len(outcomes)} of {len(cells)} cells.", ""]


def answers_section(args, rows, outcomes):
    return ["## Answers", "", answers(rows, args), "", *released(args, outcomes), "",
            "Where the teacher exists already, or serves many students, you need not pay for its "
            "training. Where you do pay, the break-even says how many students it takes to pay "
            "off. Busbridge et al. 2025 (Distillation Scaling Laws) find: distil when a teacher "
            "exists or serves several students, else train from scratch.", "",
            "![scores](scores.png)", ""]


def table_section(rows):
    return ["## Table", "",
            "Scores in points, mean over seeds +- half of the 95% interval (Student's t). `to "
            "scratch`: mean of the differences paired by seed. `compute multiplier`: how many "
            "times the budget scratch needs for the same score, read off scratch's own curve. It "
            "is given where the two are told apart. > and < say that scratch reaches the score "
            "beyond the budgets that were measured, if at all.", "",
            rows_table(rows, list(rows[0]["tasks"])), "",
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
    rates = "chosen per strategy" if tried else "equal for all strategies"
    epochs = max(row["epochs"] for row in rows)
    return ["## What would change this", "",
            f"- {seeds}",
            f"- One schedule, and learning rates {rates}.",
            "- Budgets at which students sit on the plateau (marked in the table) compare little "
            "but luck.",
            f"- Another teacher, other tasks, or more repetitions than {epochs:.3g} epochs.", ""]


def making_section(args, outcomes, command):
    """The command, the settings that all share, and how long a cell took."""
    records = [outcome["record"] for cell, outcome in outcomes.items()
               if cell.strategy == "scratch"]
    record = (records or [outcome["record"] for outcome in outcomes.values()])[0]
    settings = record["settings"]
    return ["## How it was made", "", "```bash", command, "```", "",
            f"T = {settings['seq_len']}, B = {settings['batch_size']}, lr {settings['lr']:.3g} "
            f"(scratch), betas {settings['betas']}, {settings['dtype']}. Seconds of pretraining "
            f"and of fine-tuning a cell: {', '.join(seconds_of(args, outcomes))}. Python "
            f"{platform.python_version()}, torch {version('torch')}; {record['machine']}, "
            f"{record['threads']} threads a cell.", ""]


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


def cells_section(teacher_cell, cells, failed):
    """The cells that failed, and all cells as lines of shell."""
    lines = []
    if failed:
        failures = "; ".join(f"{name}: {line}" for name, line in failed.items())
        lines += [f"Failed cells: {failures}", ""]
    lines += ["Every cell:", "", "```bash"]
    if teacher_cell:
        lines.append(teacher_cell.line)
    lines += [cell.line or str(cell.folder) for cell in cells]  # a collected cell has no line
    return [*lines, "```", ""]


def command_of(args):
    """The comparison's own command, with every option spelled out."""
    rates = args.lr_grid and ",".join(f"{lr:g}" for lr in args.lr_grid)
    tokens = ["inf" if unique is None else spell(unique) for unique in args.unique_tokens]
    options = {
        "strategies": ",".join(args.strategies), "budgets": ",".join(map(spell, args.budgets)),
        "unique-tokens": ",".join(tokens), "seeds": args.seeds,
        "first-seed": args.first_seed or None, "model": args.model, "teacher": args.teacher,
        "teacher-model": None if args.teacher else args.teacher_model,
        "teacher-flops": spell(args.teacher_flops), "data": args.data,
        "glue-data": args.glue_data, "glue-grid": args.glue_grid, "tasks": args.tasks,
        "glue-seeds": args.glue_seeds, "lr": args.lr, "lr-grid": rates,
        "train-options": args.train_options or None,
        "distil-options": args.distil_options or None, "out": args.out}
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return shlex.join(["python", "compare.py", *words])


def print_rows(args, rows):
    """The rows on the screen, and where the report is."""
    width = max(len(row["strategy"]) for row in rows)
    for row in rows:
        loss = "" if row["val_loss"] is None else f"loss {row['val_loss']:.3f}"
        score = plus_minus(row["score"], row["half"])
        difference = plus_minus(row["difference"], row["difference_half"])
        cli.say(f"{data_setting(row['unique_tokens']):22} {cli.flops(row['flops']):>7} "
                f"{row['strategy']:{width}} {score:>14} {loss:11} {difference:>14} "
                f"{row['verdict']}")
    cli.say(f"report      {args.out / 'report.md'} (scores.png, bill.png, results.csv beside it)")
