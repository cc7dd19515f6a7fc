"""What a comparison found: statistics, table, figures, report.md. `compare.py` runs the cells; this reads what they left.

Differences to scratch are paired by seed: the students of one seed saw the same blocks and masks and began with the same weights.
Their mean has a 95% interval by Student's t, and a verdict is given only where the interval leaves zero out.
"""
import csv
import io
import math
import platform
import shlex
import statistics
from importlib.metadata import version

import budget
import card
import cli
import disk
import distill
import glue
from compare import spell

# 97.5% points of Student's t for 1 to 30 degrees of freedom; above, the first terms of its expansion around the normal's.
T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
         2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423)
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")  # Okabe and Ito's, for all eyes
MARKERS = "osD^vPX*"


def t_975(df):
    """The 97.5% point of Student's t with df degrees of freedom: between it and its negative lie 95%."""
    z = 1.959964
    return T_975[df - 1] if df <= 30 else z + (z ** 3 + z) / (4 * df) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * df ** 2)


def interval(values):
    """(mean, half the width of its 95% interval by Student's t); the half is None for a single value."""
    n = len(values)
    return statistics.mean(values), t_975(n - 1) * statistics.stdev(values) / math.sqrt(n) if n > 1 else None


def verdict(mean, half, n):
    """A difference to scratch in words."""
    if half is None:
        return "one seed: no verdict"
    if abs(mean) <= half or mean == 0:
        return f"not told apart from scratch with {n} seeds"
    return "ahead of scratch" if mean > 0 else "behind scratch"


def score_of(results, chosen_on=False):
    """A student's score: the mean over tasks of each one's `glue.headline`."""
    return statistics.mean(glue.headline(result, chosen_on) for result in results.values())


def compute_multiplier(curve, C, score):
    """How many times the budget C scratch needs to reach `score`: ("=", kappa), or, beyond what was measured, (">", bound) or ("<", bound).

    curve: scratch's [(FLOPs, score)]; between two points it is a straight line over log FLOPs, and the first crossing counts."""
    curve = sorted(curve)
    if score <= curve[0][1]:
        return ("=" if score == curve[0][1] else "<"), curve[0][0] / C
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 < score <= s1:
            share = (score - s0) / (s1 - s0)
            return "=", math.exp(math.log(C0) + share * (math.log(C1) - math.log(C0))) / C
    return ">", curve[-1][0] / C


def break_even(teacher_flops, kappa, C):
    """From how many students on a teacher pays that costs C_teacher: each saves (kappa - 1) C. None where it never does."""
    return math.ceil(teacher_flops / ((kappa - 1) * C)) if kappa > 1 and teacher_flops else None


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
                             "bill": first["bill"], "plateau": any(card.on_plateau(records[seed]) for seed in losses),
                             "tasks": {task: statistics.mean(100 * score_of({task: found[unique, flops, strategy, seed]["results"][task]}) for seed in here)
                                       for task in found[unique, flops, strategy, next(iter(here))]["results"]}})
    return rows


def setting(unique):
    return "unlimited data" if unique is None else f"{budget.flops(unique)} distinct tokens"


def pm(value, half, digits=1):
    return "" if value is None else f"{value:.{digits}f}" + ("" if half is None else f" +- {half:.{digits}f}")


def table(rows, tasks):
    lines = ["| data | FLOPs | strategy | tokens | epochs | MLM loss | " + " | ".join(tasks) + " | score | to scratch | verdict | compute multiplier |",
             "|---" * (10 + len(tasks)) + "|"]
    for row in rows:
        told_apart = row["verdict"].startswith(("ahead", "behind"))  # else it is within the noise
        sign, kappa = row["multiplier"] or ("", 0)
        multiplier = f"{'' if sign == '=' else sign + ' '}{kappa:.2g}" if told_apart and kappa else ""
        lines.append(f"| {setting(row['unique_tokens'])} | {budget.flops(row['flops'])} | {row['strategy']} | {budget.flops(row['tokens'])} | "
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

def save(figure, folder, name):
    figure.tight_layout()
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else None
        disk.replace(folder / f"{name}.{kind}", lambda temporary, kind=kind: figure.savefig(temporary, format=kind, dpi=150, metadata=metadata))
    card.pyplot().close(figure)


def draw_scores(rows, args, folder):
    """scores.png: score (and masked-word loss, where there is one) against FLOPs; a line, its 95% band and a dot for each student, by
    strategy, in a panel a data setting. The axes show all dots; with few seeds a band may go beyond."""
    figure, axes = card.pyplot().subplots(2, len(args.unique_tokens), figsize=(5 * len(args.unique_tokens), 7), sharex=True, sharey="row", squeeze=False)
    named = []  # (axes, where the lines end): names come when the limits are known
    for column, unique in enumerate(args.unique_tokens):
        for top, key, half, by_seed in ((0, "score", "half", "by_seed"), (1, "val_loss", "loss_half", "loss_by_seed")):
            ax, ends = axes[top][column], []
            named.append((ax, ends))
            for strategy in args.strategies:
                i = list(distill.STRATEGIES).index(strategy)  # the same colour in all figures
                here = [row for row in rows if row["unique_tokens"] == unique and row["strategy"] == strategy and row[key] is not None]
                if not here:
                    continue
                x, y = [row["flops"] for row in here], [row[key] for row in here]
                ax.plot(x, y, color=COLOURS[i % 8], marker=MARKERS[i % 8], linewidth=1.6, markersize=5)
                dots = [(row["flops"], value) for row in here for value in row[by_seed].values()]
                ax.plot(*zip(*dots), color=COLOURS[i % 8], marker=MARKERS[i % 8], linestyle="", markersize=3, alpha=0.4)
                if all(row[half] is not None for row in here):
                    low, high = [v - row[half] for v, row in zip(y, here)], [v + row[half] for v, row in zip(y, here)]
                    ax.fill_between(x, low, high, color=COLOURS[i % 8], alpha=0.12, linewidth=0)
                ends.append((y[-1], x[-1], strategy, COLOURS[i % 8]))
            ax.set_xscale("log")
            card.open_axes(ax)
        axes[0][column].set_title(setting(unique), fontsize=11)
        axes[1][column].set_xlabel("FLOPs, the teacher's passes included")
        axes[1][column].set_xticks(args.budgets, [spell(C) for C in args.budgets])
        axes[1][column].minorticks_off()
    left, right = axes[0][0].get_xlim()  # all panels share it: room for the names at the right
    axes[0][0].set_xlim(left, right * max(1.8, (right / left) ** 0.25))
    for top, by_seed in ((0, "by_seed"), (1, "loss_by_seed")):
        values = [value for row in rows for value in row[by_seed].values()]
        if values:
            margin = 0.06 * (max(values) - min(values)) or 1.0
            axes[top][0].set_ylim(min(values) - margin, max(values) + margin)
    for ax, ends in named:
        label_ends(ax, ends)
    axes[0][0].set_ylabel("score (mean over tasks)")
    axes[1][0].set_ylabel("masked-word loss (nats)")
    save(figure, folder, "scores")


def label_ends(ax, ends):
    """The strategies' names beside the ends of their lines, pushed apart where they would overlap."""
    if not ends:
        return
    low, high = ax.get_ylim()
    step, last = (high - low) * 0.055, -math.inf
    for y, x, name, colour in sorted(ends):
        last = max(y, last + step)
        ax.annotate(name, (x, y), xytext=(x * 1.12, last), textcoords="data", color=colour, fontsize=9, va="center", annotation_clip=False)


def draw_bill(rows, args, folder):
    """bill.png: what each strategy's budget was spent on."""
    parts = (("student_forward", "student, forward", "#56b4e9", ""), ("student_backward", "student, backward", "#0072b2", ""),
             ("teacher_forward", "teacher, forward", "#d55e00", "//"), ("loss", "products in the loss", "#999999", ".."))
    bills = {row["strategy"]: row["bill"] for row in rows}
    figure, ax = card.pyplot().subplots(figsize=(7, 0.6 + 0.5 * len(bills) + 0.8))
    for y, (strategy, bill) in enumerate(bills.items()):
        left, total = 0.0, sum(bill.values())
        for key, label, colour, hatch in parts:
            share = 100 * bill[key] / total
            ax.barh(y, share, left=left, color=colour, hatch=hatch, edgecolor="white", label=label if y == 0 else None)
            if share > 6:
                ax.text(left + share / 2, y, f"{share:.0f}%", ha="center", va="center", fontsize=9, color="white" if colour == "#0072b2" else "black",
                        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5})
            left += share
    ax.set_yticks(range(len(bills)), list(bills))
    ax.invert_yaxis()
    ax.set_xlabel("share of the budget (%)")
    ax.legend(frameon=False, ncols=2, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    card.open_axes(ax)
    save(figure, folder, "bill")


# ---------------------------------------------------------------------------------------------------------------------
# The report

def answers(rows, args, teacher_flops):
    """The question's answers in words, strategy by strategy and setting by setting."""
    lines = []
    for row in rows:
        if row["strategy"] == "scratch":
            continue
        text = f"- **{row['strategy']}, {setting(row['unique_tokens'])}, {budget.flops(row['flops'])} FLOPs**: {row['verdict']}"
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
                lines.append(f"- kd against kd-released, {setting(unique)}, {budget.flops(C)} FLOPs: {words} ({pm(*interval(pairs))} points)")
    return lines


def write(args, teacher, teacher_cell, cells, outcomes, tried, failed, command=None):
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
    chosen = ["## Learning rates", "", f"Chosen by development score at {budget.flops(args.budgets[0])} FLOPs, {setting(args.unique_tokens[0])}, seed 0 "
              f"({budget.flops(len(tried) * args.budgets[0])} FLOPs of tries).", "", "| strategy | rate | development score |", "|---|---|---|",
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
        f"({args.teacher or f'trained here with {budget.flops(args.teacher_flops)} FLOPs'}), text: {args.data}, tasks: {', '.join(tasks)}. All students see the same blocks and masks in the same order, begin with the same weights for a seed, and are fine-tuned "
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
        cli.say(f"{setting(row['unique_tokens']):22} {budget.flops(row['flops']):>7} {row['strategy']:{width}} {pm(row['score'], row['half']):>14} {loss:11} "
                f"{pm(row['difference'], row['difference_half']):>14} {row['verdict']}")
    cli.say(f"report      {args.out / 'report.md'} (scores.png, bill.png, results.csv beside it)")
