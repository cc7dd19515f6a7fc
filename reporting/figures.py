"""Figures: a run's curve, and of a comparison its differences, its scores and its bill."""
import math
from pathlib import Path

from files import disk
from program.options import COPIED

import distill
from measure.statistics import MARGIN, is_resolved
from reporting.words import data_setting, difference_words, power_of_ten

# Okabe and Ito's palette, which colour-blind readers can tell apart. A strategy has the same colour
# and marker in all figures.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
MARKERS = "osD^vPX*"
PART = 0.5  # of a row of forest.png: the height of a budget's line


def pyplot():
    """matplotlib.pyplot, drawing without a screen. The import waits until here, since it takes a
    second and only the end of a run needs it."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "isoflop"  # the same figure is the same file
    from matplotlib import pyplot
    return pyplot


def open_axes(axes):
    """Removes the lines at the top and at the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def style_of(strategy):
    """(colour, marker) of a strategy. With copied layers it keeps its colour."""
    i = list(distill.STRATEGIES).index(strategy.removesuffix(COPIED)) % len(COLOURS)
    return COLOURS[i], "h" if strategy.endswith(COPIED) else MARKERS[i]


def save(figure, folder, name):
    """Writes name.png and name.svg."""
    figure.tight_layout()
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else None
        disk.replace(folder / f"{name}.{kind}", lambda temporary, kind=kind, metadata=metadata:
                     figure.savefig(temporary, format=kind, dpi=150, metadata=metadata))
    pyplot().close(figure)


# --------------------------------------------------------------------------------------------------
# A run


def draw_curve(folder, log, record):
    """Draws curve.png: training and validation loss against FLOPs.

    It shows the masked-word loss, and the two counting losses as dashed lines. A strategy without a
    masked-word loss gets the first of its own losses."""
    figure, axes = pyplot().subplots(figsize=(7, 4.5), dpi=120)
    term = next(iter(record["val_terms"]))  # "mlm" where there is one
    styles = (("terms", "training", {"color": "0.7", "linewidth": 1}),
              ("val_terms", "validation", {"color": "#0072b2", "marker": "o", "markersize": 4}))
    for key, label, style in styles:
        rows = [row for row in log if term in row.get(key, ())]
        axes.plot([row["flops"] for row in rows], [row[key][term] for row in rows], label=label,
                  **style)
    if term == "mlm":
        draw_counting_losses(axes, record)
    settings = record["settings"]
    axes.set_xlim(right=1.03 * settings["flops_budget"])  # the run may not be at its end
    axes.set_xlabel("FLOPs spent")
    axes.set_ylabel("masked-word loss (nats)" if term == "mlm" else f"{term} loss")
    axes.set_title(f"{settings['strategy']}, BERT {settings['model']}", fontsize=10)
    axes.legend(frameon=False)
    open_axes(axes)
    figure.tight_layout()
    disk.replace(Path(folder) / "curve.png",
                 lambda temporary: figure.savefig(temporary, format="png"))
    pyplot().close(figure)


def draw_counting_losses(axes, record):
    """Dashed lines for the losses of counting words. Their names stand at the right of the axes,
    where no curve is: a run on the plateau lies on the unigram line itself."""
    names = {"unigram_loss": "unigram: word\nfrequencies",
             "neighbour_loss": "both neighbours,\nby counts"}
    keys = sorted(names, key=record.get)
    for key in keys:
        axes.axhline(record[key], color="0.3", linewidth=1, linestyle="--")
    low, high = axes.get_ylim()
    heights = apart([record[key] for key in keys], 0.085 * (high - low))
    for key, height in zip(keys, heights):
        axes.text(1.01, height, names[key], transform=axes.get_yaxis_transform(), va="center",
                  fontsize=8)


def apart(heights, step):
    """Rising heights of texts, moved up where one would be less than `step` above the one before
    it."""
    moved, last = [], -math.inf
    for height in heights:
        last = max(height, last + step)
        moved.append(last)
    return moved


# --------------------------------------------------------------------------------------------------
# A comparison


def draw_forest(pooled, args, folder):
    """Draws forest.png: for each data setting and strategy the pooled difference to scratch with
    its interval, beside zero and the band in which students count as equal. What is resolved is
    bold and filled. Where it is a mean over several budgets, thin lines below it show each."""
    parts = [row["parts"] if len(row["parts"]) > 1 else [] for row in pooled]
    height = len(pooled) + len(args.unique_tokens) + PART * sum(map(len, parts))
    figure, ax = pyplot().subplots(figsize=(7.5, 1.1 + 0.42 * max(1, height)))
    ax.axvspan(-MARGIN, MARGIN, color="0.92", linewidth=0)
    ax.axvline(0, color="0.3", linewidth=1)
    y, ticks, small_ticks = 0.0, [], []
    for unique in args.unique_tokens:
        ax.text(0, y, data_setting(unique), transform=ax.get_yaxis_transform(), fontsize=9,
                color="0.35", va="center", ha="right", style="italic")
        for row, at_budgets in zip(pooled, parts):
            if row["unique_tokens"] == unique:
                y += 1
                draw_difference(ax, y, row)
                ticks.append((y, row))
                for part in at_budgets:
                    y += PART
                    draw_part(ax, y, part)
                    small_ticks.append((y, part))
        y += 1
    name_rows(ax, args, ticks, small_ticks)
    ax.set_ylim(y - 0.3, -0.7)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel(f"points more than scratch (grey: within {MARGIN:g} points)")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    save(figure, folder, "forest")


def name_rows(ax, args, ticks, small_ticks):
    """Writes the strategies, and the budgets below them. ticks, small_ticks: [(height, row)]. A row
    of one among several budgets names it itself."""
    names = [row["strategy"] for _, row in ticks]
    for i, (_, row) in enumerate(ticks):
        if len(row["budgets"]) == 1 < len(args.budgets):
            names[i] += f", {power_of_ten(row['budgets'][0])} FLOPs"
    ax.set_yticks([y for y, _ in ticks], names)
    for label, (_, row) in zip(ax.get_yticklabels(), ticks):
        label.set_fontweight(weight_of(row))
    budgets = [f"{power_of_ten(part['flops'])} FLOPs" for _, part in small_ticks]
    ax.set_yticks([y for y, _ in small_ticks], budgets, minor=True)
    ax.tick_params(axis="y", which="both", length=0)
    ax.tick_params(axis="y", which="minor", labelsize=7, labelcolor="0.35")


def draw_difference(ax, y, row):
    """One row of forest.png."""
    colour, marker = style_of(row["strategy"])
    is_bold = weight_of(row) == "bold"
    ax.errorbar([row["difference"]], [y], xerr=row["difference_half"], color=colour, marker=marker,
                markersize=8 if is_bold else 6, linewidth=2.5 if is_bold else 1.2,
                capsize=3, markerfacecolor=colour if is_bold else "white")
    words = f"{difference_words(row)} (n = {row['pairs']})"
    ax.text(1.01, y, words, transform=ax.get_yaxis_transform(), fontsize=9, va="center",
            fontweight=weight_of(row))


def draw_part(ax, y, row):
    """The difference at one budget, below the pooled one."""
    colour, marker = style_of(row["strategy"])
    ax.errorbar([row["difference"]], [y], xerr=row["difference_half"], color=colour, marker=marker,
                markersize=4, linewidth=0.8,
                markerfacecolor=colour if is_resolved(row["verdict"]) else "white")
    ax.text(1.01, y, f"{difference_words(row)} (n = {row['pairs']})",
            transform=ax.get_yaxis_transform(), fontsize=7, color="0.35", va="center")


def weight_of(row):
    """The font of a pooled difference: bold where it is resolved, and not where it depends on the
    budget, which no mean says."""
    return "bold" if is_resolved(row["verdict"]) and not row["depends"] else "normal"


def draw_scores(rows, args, folder, levels):
    """Draws scores.png: score, and below it masked-word loss, against FLOPs.

    Each strategy has a line through its means and a dot for each student. Each data setting has a
    column. Dashed lines show what the students lie between. levels: from findings.levels_of."""
    n = len(args.unique_tokens)
    figure, axes = pyplot().subplots(2, n, figsize=(5 * n, 7), sharex=True, sharey="row",
                                     squeeze=False)
    panels = []  # (axes, where its lines end); names are written once the limits are known
    kinds = (("score", "by_seed"), ("val_loss", "loss_by_seed"))
    for column, unique in enumerate(args.unique_tokens):
        of_column = [row for row in rows if row["unique_tokens"] == unique]
        for ax, keys in zip(axes[:, column], kinds):
            panels.append((ax, draw_panel(ax, of_column, args.strategies, *keys)))
        axes[0][column].set_title(data_setting(unique), fontsize=11)
        axes[1][column].set_xlabel("FLOPs, the teacher's passes included")
        axes[1][column].set_xticks(args.budgets, [power_of_ten(C) for C in args.budgets])
        axes[1][column].minorticks_off()
    # Shared by all panels. The names need room at the right.
    left, right = args.budgets[0] / 1.3, args.budgets[-1] * 1.3
    axes[0][0].set_xlim(left, right * (right / left) ** 0.35)
    for row_of_axes, (key, by_seed) in zip(axes, kinds):
        values = [value for row in rows for value in row[by_seed].values()]
        if values:
            draw_levels(row_of_axes, levels[key], values)
    for ax, ends in panels:
        label_ends(ax, ends)
    axes[0][0].set_ylabel("score (mean over tasks)")
    axes[1][0].set_ylabel("masked-word loss (nats)")
    save(figure, folder, "scores")


def draw_levels(row_of_axes, levels, values):
    """Dashed lines for what the students lie between, and limits that show all of them."""
    shown = [*values, *levels.values()]
    margin = 0.06 * (max(shown) - min(shown)) or 1.0
    row_of_axes[0].set_ylim(min(shown) - margin, max(shown) + margin)  # shared by the row
    for ax in row_of_axes:
        for name, value in levels.items():
            ax.axhline(value, color="0.5", linewidth=1, linestyle="--", zorder=0)
            ax.text(0.01, value, name, transform=ax.get_yaxis_transform(), fontsize=8,
                    color="0.35", va="bottom")


def draw_panel(ax, rows, strategies, key, by_seed):
    """Draws one panel of scores.png. key, by_seed: the columns of mean and single values. Returns
    where the strategies' lines end: [(y, x, name, colour)].

    The strategies stand a little beside each other, so that their dots can be told apart."""
    ends = []
    for i, strategy in enumerate(strategies):
        colour, marker = style_of(strategy)
        line = [row for row in rows if row["strategy"] == strategy and row[key] is not None]
        if not line:
            continue
        aside = 1.03 ** (i - (len(strategies) - 1) / 2)
        x, y = [row["flops"] * aside for row in line], [row[key] for row in line]
        ax.plot(x, y, color=colour, marker=marker, linewidth=1.6, markersize=6)
        dots = [(row["flops"] * aside, value) for row in line for value in row[by_seed].values()]
        ax.plot(*zip(*dots), color=colour, marker=marker, linestyle="", markersize=3, alpha=0.4)
        ends.append((y[-1], x[-1], strategy, colour))
    ax.set_xscale("log")
    open_axes(ax)
    return ends


def label_ends(ax, ends, room=0.055, leaders=False):
    """Writes the lines' names beside their ends, pushed apart where they would overlap. room: the
    share of the axes' height that a name takes. leaders: thin lines lead from the ends to the
    names, for lines that end at different FLOPs."""
    if not ends:
        return
    low, high = ax.get_ylim()
    step = (high - low) * room
    heights = apart([y for y, *_ in sorted(ends)], step)
    # From the top down: what would stand in the title, or where another name went, moves down.
    heights = [-y for y in apart([-min(y, high - step) for y in reversed(heights)], step)][::-1]
    left, right = ax.get_xlim()
    beside = max(x for _, x, *_ in ends) * (right / left) ** 0.03
    line = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.5, "shrinkA": 1, "shrinkB": 2,
            "relpos": (0, 0.5)}
    for (y, x, name, colour), height in zip(sorted(ends), heights):
        ax.annotate(name, (x, y), xytext=(beside, height), textcoords="data", color=colour,
                    fontsize=9, va="center", annotation_clip=False,
                    arrowprops={**line, "color": colour} if leaders else None)


# What a budget is spent on: (key of the bill, label, colour, hatch).
BILL_PARTS = (("student_forward", "student, forward", "#56b4e9", ""),
              ("student_backward", "student, backward", "#0072b2", ""),
              ("teacher_forward", "teacher, forward", "#d55e00", "//"),
              ("loss", "products in the loss", "#999999", ".."))


def draw_bill(rows, args, folder):
    """Draws bill.png: what each strategy's budget was spent on."""
    bills = {row["strategy"]: row["bill"] for row in rows}
    figure, ax = pyplot().subplots(figsize=(7, 0.6 + 0.5 * len(bills) + 0.8))
    for y, bill in enumerate(bills.values()):
        left, total, small = 0.0, sum(bill.values()), []
        for key, label, colour, hatch in BILL_PARTS:
            share = 100 * bill[key] / total
            ax.barh(y, share, left=left, color=colour, hatch=hatch, edgecolor="white",
                    label=label if y == 0 else None)
            if share > 6:
                ax.text(left + share / 2, y, f"{share:.0f}%", ha="center", va="center", fontsize=9,
                        color="white" if colour == "#0072b2" else "black",
                        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5})
            elif share > 0:  # too narrow for its number, which stands beside the bar
                small.append(f"{share:.1g}% {key.replace('_', ' ')}")
            left += share
        ax.text(101, y, "\n".join(small), va="center", fontsize=9)
    ax.set_yticks(range(len(bills)), list(bills))
    ax.invert_yaxis()
    ax.set_xlabel("share of the budget (%)")
    ax.legend(frameon=False, ncols=2, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    open_axes(ax)
    save(figure, folder, "bill")
