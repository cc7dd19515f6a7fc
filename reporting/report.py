"""What a comparison found: statistics, table, figures, report.md. `compare.py` runs the cells; this reads what they left.

Differences to scratch are paired by seed: the students of one seed saw the same blocks and masks and began with the same weights.
Their mean has a 95% interval by Student's t, and a verdict is given only where the interval leaves zero out.
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
from reporting.words import pm, setting, spell

# ---------------------------------------------------------------------------------------------------------------------
# The table

def rows_of(args, outcomes):
    """One row for each (data setting, budget, strategy): scores by seed, difference to scratch, multiplier."""
    found = {(cell.unique_tokens, cell.flops, cell.strategy, cell.seed): outcome for cell, outcome in outcomes.items()}
    rows = []
    for unique in args.unique_tokens:
        def scores(flops, strategy):
            return {seed: 100 * score_of(found[key]["results"]) for seed in args.seed_numbers if (key := (unique, flops, strategy, seed)) in found}
        curve = [(flops, statistics.mean(here.values())) for flops in args.budgets if (here := scores(flops, "scratch"))]
        for flops in args.budgets:
            base = scores(flops, "scratch")
            for strategy in args.strategies:
                here = scores(flops, strategy)
                if not here:
                    continue
                records = {seed: found[unique, flops, strategy, seed]["record"] for seed in here}
                first = next(iter(records.values()))
                paired = [here[seed] - base[seed] for seed in here if seed in base] if strategy != "scratch" else []
                difference, half = interval(paired) if paired else (None, None)
                mean, spread = interval(list(here.values()))
                losses = {seed: record["val_loss"] for seed, record in records.items() if record["val_loss"] is not None}
                loss, loss_half = interval(list(losses.values())) if losses else (None, None)
                rows.append({"unique_tokens": unique, "flops": flops, "strategy": strategy, "seeds": len(here), "score": mean, "half": spread,
                             "by_seed": here, "difference": difference, "difference_half": half, "pairs": len(paired),
                             "verdict": verdict(difference, half, len(paired)) if paired else "",
                             "multiplier": compute_multiplier(curve, flops, mean) if strategy != "scratch" and curve else None,
                             "val_loss": loss, "loss_half": loss_half, "loss_by_seed": losses, "tokens": first["tokens"], "epochs": first["epochs"],
                             "bill": first["bill"], "plateau": any(on_plateau(records[seed]) for seed in losses),
                             "tasks": {task: statistics.mean(100 * score_of({task: found[unique, flops, strategy, seed]["results"][task]}) for seed in here)
                                       for task in found[unique, flops, strategy, next(iter(here))]["results"]}})
    return rows






def table(rows, tasks):
    lines = ["| data | FLOPs | strategy | tokens | epochs | MLM loss | " + " | ".join(tasks) + " | score | to scratch | verdict | compute multiplier |",
             "|---" * (10 + len(tasks)) + "|"]
    for row in rows:
        told_apart = row["verdict"].startswith(("ahead", "behind"))  # else it is within the noise
        sign, kappa = row["multiplier"] or ("", 0)
        multiplier = f"{'' if sign == '=' else sign + ' '}{kappa:.2g}" if told_apart and kappa else ""
        lines.append(f"| {setting(row['unique_tokens'])} | {cli.flops(row['flops'])} | {row['strategy']} | {cli.flops(row['tokens'])} | "
                     f"{row['epochs']:.3g} | {pm(row['val_loss'], None, 3) or 'no head'}{' (plateau)' if row['plateau'] else ''} | "
                     + " | ".join(f"{row['tasks'][task]:.1f}" for task in tasks) + f" | {pm(row['score'], row['half'])} | "
                     f"{pm(row['difference'], row['difference_half'])} | {row['verdict']} | {multiplier} |")
    return "\n".join(lines)


def results_csv(outcomes):
    """One row a cell, task, part and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["strategy", "flops", "unique_tokens", "seed", "lr", "task", "part", "metric", "score", "val_loss", "flops_spent", "tokens", "epochs"])
    for cell, outcome in outcomes.items():
        record = outcome["record"]
        for task, result in outcome["results"].items():
            for part, metrics in result["metrics"].items():
                for metric, (value, _) in metrics.items():
                    loss = "" if record["val_loss"] is None else f"{record['val_loss']:.6f}"
                    writer.writerow([cell.strategy, cell.flops, cell.unique_tokens or "inf", cell.seed, f"{record['settings']['lr']:.6g}", task, part, metric,
                                     f"{value:.6f}", loss, record["flops_spent"], record["tokens"], f"{record['epochs']:.4f}"])
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Figures









# ---------------------------------------------------------------------------------------------------------------------
# The report

def answers(rows, args, teacher_flops):
    """The question's answers in words, strategy by strategy and setting by setting."""
    lines = []
    for row in rows:
        if row["strategy"] == "scratch":
            continue
        text = f"- **{row['strategy']}, {setting(row['unique_tokens'])}, {cli.flops(row['flops'])} FLOPs**: {row['verdict']}"
        if row["difference"] is not None:
            text += f" ({pm(row['difference'], row['difference_half'])} points)"
        if row["multiplier"] is None:
            lines.append(f"{text}; no scratch student to compare with.")
            continue
        if len(args.budgets) < 2 or not row["verdict"].startswith(("ahead", "behind")):
            lines.append(f"{text}.")  # a multiplier within the noise says nothing, nor is there one on a curve of one point
            continue
        sign, kappa = row["multiplier"]
        words = {"=": f"scratch needs {kappa:.2g} times the budget to score the same",
                 ">": f"scratch does not reach its score within {kappa:.2g} times the budget" if kappa > 1.01 else
                 "scratch does not reach its score, and no larger budget was measured",
                 "<": f"scratch scores the same with less than {kappa:.2g} times the budget"}[sign]
        n = break_even(teacher_flops, kappa, row["flops"]) if sign != "<" else None
        paid = f"; with the teacher's training charged it pays from {'at most ' if sign == '>' else ''}{n:,} students on" if n else ""
        lines.append(f"{text}; {words}{paid}.")
    n = sum(row["pairs"] > 1 for row in rows)
    if n:
        lines.append(f"\nOf {n} such comparisons {n / 20:.1f} would seem told apart by chance alone, in the mean (95% intervals).")
    return "\n".join(lines)


def released(args, outcomes):
    """Does KD win once its term is not divided by the vocabulary? `kd` against `kd-released`, paired, where both were run."""
    scores = {(cell.unique_tokens, cell.flops, cell.seed, cell.strategy): 100 * score_of(outcome["results"]) for cell, outcome in outcomes.items()}
    lines = []
    for unique in args.unique_tokens:
        for C in args.budgets:
            pairs = [scores[unique, C, seed, "kd"] - scores[unique, C, seed, "kd-released"] for seed in args.seed_numbers
                     if (unique, C, seed, "kd") in scores and (unique, C, seed, "kd-released") in scores]
            if pairs:
                words = verdict(*interval(pairs), len(pairs)).replace("scratch", "kd-released")
                lines.append(f"- kd against kd-released, {setting(unique)}, {cli.flops(C)} FLOPs: {words} ({pm(*interval(pairs))} points)")
    return lines


def write(args, teacher_cell, cells, outcomes, tried, failed, command=None):
    """report.md, results.csv and the figures, from the finished cells; says on screen what the report says first."""
    rows = rows_of(args, outcomes)
    if not rows:
        cli.say("no cell is finished: there is nothing to report")
        return
    tasks = list(rows[0]["tasks"])
    disk.write_file(args.out / "results.csv", results_csv(outcomes))
    draw_scores(rows, args, args.out)
    draw_bill(rows, args, args.out)
    example = min(outcomes.items(), key=lambda item: item[0].strategy != "scratch")[1]["record"]  # scratch's, if there is one
    options = {"strategies": ",".join(args.strategies), "budgets": ",".join(map(spell, args.budgets)),
               "unique-tokens": ",".join("inf" if unique is None else spell(unique) for unique in args.unique_tokens), "seeds": args.seeds,
               "first-seed": args.first_seed or None, "model": args.model, "teacher": args.teacher,
               "teacher-model": None if args.teacher else args.teacher_model, "teacher-flops": spell(args.teacher_flops), "data": args.data,
               "glue-data": args.glue_data, "glue-grid": args.glue_grid, "tasks": args.tasks, "glue-seeds": args.glue_seeds, "lr": args.lr,
               "lr-grid": args.lr_grid and ",".join(f"{lr:g}" for lr in args.lr_grid), "train-options": args.train_options or None,
               "distil-options": args.distil_options or None, "out": args.out}
    command = command or shlex.join(["python", "compare.py", *(f"--{name}={value}" for name, value in options.items() if value is not None)])
    chosen = ["## Learning rates", "", f"Chosen by development score at {cli.flops(args.budgets[0])} FLOPs, {setting(args.unique_tokens[0])}, seed 0 "
              f"({cli.flops(len(tried) * args.budgets[0])} FLOPs of tries).", "", "| strategy | rate | development score |", "|---|---|---|",
              *(f"| {strategy} | {lr:g} | {100 * score:.1f} |" for strategy, lr, score in tried), ""] if tried else []
    settings = example["settings"]
    seconds = {}
    for strategy in args.strategies:
        here = [outcome for cell, outcome in outcomes.items() if cell.strategy == strategy]
        if here:
            seconds[strategy] = (statistics.mean(outcome["record"]["seconds"] for outcome in here),
                                 statistics.mean(sum(result["seconds"] for result in outcome["results"].values()) for outcome in here))
    text = "\n".join([
        "# From scratch or distilled, at equal compute?", "",
        f"Student BERT {args.model}, teacher BERT {args.teacher_model} "
        f"({args.teacher or f'trained here with {cli.flops(args.teacher_flops)} FLOPs'}), text: {args.data}, tasks: {', '.join(tasks)}. All students see the same blocks and masks in the same order, begin with the same weights for a seed, and are fine-tuned "
        f"alike; a distilled one pays for its teacher's forward passes. {len(outcomes)} of {len(cells)} cells.", "",
        "## Answers", "", answers(rows, args, args.teacher_flops), "", *released(args, outcomes), "",
        "Where the teacher exists already, or serves many students, its training need not be charged; where it must be, the break-even says how many "
        "students it takes. Busbridge et al. 2025 (Distillation Scaling Laws) find: distil when a teacher exists or serves several students, else train from scratch.", "",
        "![scores](scores.png)", "", "## Table", "",
        "Scores in points, mean over seeds +- half of the 95% interval (Student's t). `to scratch`: mean of the differences paired by seed. "
        "`compute multiplier`: how many times the budget scratch needs for the same score, read off its own curve, where the two are told apart; > and < "
        "where it lies beyond what was measured.", "", table(rows, tasks), "",
        "## The bill", "", "![bill](bill.png)", "", *chosen, "## What would change this", "",
        f"- {args.seeds} {'seeds: smaller differences than the intervals are' if args.seeds > 1 else 'seed: how much of a difference is luck is'} not seen.",
        f"- One schedule, and learning rates {'chosen per strategy' if tried else 'equal for all strategies'}.",
        "- Budgets at which students sit on the plateau (marked in the table) compare little but luck.",
        f"- Another teacher, other tasks, or more repetitions than {max(row['epochs'] for row in rows):.3g} epochs.", "",
        "## How it was made", "", "```bash", command, "```", "",
        f"T = {settings['seq_len']}, B = {settings['batch_size']}, lr {settings['lr']:.3g} (scratch), betas {settings['betas']}, {settings['dtype']}. "
        "Seconds of pretraining and of fine-tuning a cell: "
        + ", ".join(f"{strategy} {value[0]:.0f} and {value[1]:.0f}" for strategy, value in seconds.items())
        + f". Python {platform.python_version()}, torch {version('torch')}; {example['machine']}, {example['threads']} threads a cell.", "",
        *([f"Failed cells: {'; '.join(f'{name}: {line}' for name, line in failed.items())}", ""] if failed else []), "Every cell:", "", "```bash",
        *([teacher_cell.line] if teacher_cell else []), *(cell.line or str(cell.folder) for cell in cells), "```", ""])
    disk.write_file(args.out / "report.md", text)
    width = max(len(row["strategy"]) for row in rows)
    for row in rows:
        loss = "" if row["val_loss"] is None else f"loss {row['val_loss']:.3f}"
        cli.say(f"{setting(row['unique_tokens']):22} {cli.flops(row['flops']):>7} {row['strategy']:{width}} {pm(row['score'], row['half']):>14} {loss:11} "
                f"{pm(row['difference'], row['difference_half']):>14} {row['verdict']}")
    cli.say(f"report      {args.out / 'report.md'} (scores.png, bill.png, results.csv beside it)")
