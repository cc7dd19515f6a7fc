"""Figures: a run's curve, and of a comparison its differences, its scores and its bill."""
from pathlib import Path

from files import disk
from running.options import COPIED

import numpy as np

import distill
from measure.statistics import MARGIN
from reporting.words import data_setting, plus_minus, power_of_ten

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
MARKERS = "osD^vPX*"


def pyplot():
    """matplotlib.pyplot without a screen. The import takes a second, and waits until here."""
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "isoflop"  # the same figure is the same file
    from matplotlib import pyplot
    return pyplot


def open_axes(axes):
    """Removes the lines at the top and at the right."""
    axes.spines[["top", "right"]].set_visible(False)


def style_of(strategy):
    """(colour, marker) of a strategy. With copied layers it keeps its colour."""
    i = list(distill.STRATEGIES).index(strategy.removesuffix(COPIED)) % len(COLOURS)
    return COLOURS[i], "h" if strategy.endswith(COPIED) else MARKERS[i]


def save(figure, folder, name, kinds=("png", "svg")):
    """Writes name.png and name.svg."""
    figure.tight_layout()
    for kind in kinds:
        metadata = {"Date": None} if kind == "svg" else None
        disk.replace(folder / f"{name}.{kind}", lambda temporary, kind=kind, metadata=metadata:
                     figure.savefig(temporary, format=kind, dpi=150, metadata=metadata))
    pyplot().close(figure)


def draw_counting_losses(axes, record):
    """Dashed lines for the two losses of counting words, which the legend names."""
    for key, label, style in (("unigram_loss", "word frequencies (unigram)", "--"),
                              ("neighbour_loss", "both neighbours, by counts", (0, (8, 3)))):
        axes.axhline(record[key], color="0.3", linewidth=1, linestyle=style, label=label)


def draw_curve(folder, log, record):
    """Draws curve.png: a run's training and validation loss against FLOPs, of masked words, beside
    the two losses of counting them. A strategy without such a loss has the first of its own."""
    figure, axes = pyplot().subplots(figsize=(7, 4.5))
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
    axes.set(xlabel="FLOPs spent", title=f"{settings['strategy']}, BERT {settings['model']}",
             ylabel="masked-word loss (nats)" if term == "mlm" else f"{term} loss")
    axes.legend(frameon=False)
    open_axes(axes)
    save(figure, Path(folder), "curve", ["png"])


# --------------------------------------------------------------------------------------------------
# A comparison. found: what compare.py found, its Found


def draw_forest(found, folder):
    """Draws forest.png: for each data setting and strategy the pooled difference to scratch with
    its interval, beside zero and the band in which students count as equal. Where it is a mean over
    several budgets, thin lines below it show each."""
    figure, ax = pyplot().subplots()
    ax.axvspan(-MARGIN, MARGIN, color="0.92", linewidth=0)
    ax.axvline(0, color="0.3", linewidth=1)
    y, last = 0.0, None  # the height of a line counts from the top down
    has_parts = found.students["flops"].nunique() > 1
    for row in found.pooled:
        if row["data"] != last:
            y, last = y + bool(last), row["data"]
            ax.text(0, y, data_setting(last), transform=ax.get_yaxis_transform(), fontsize=9,
                    color="0.35", va="center", ha="right", style="italic")
        y += 1
        draw_difference(ax, y, row)
        for part in row["parts"] if has_parts else []:
            y += 0.5
            draw_difference(ax, y, part, is_part=True)
    figure.set_size_inches(7.5, 1.1 + 0.42 * (y + 1))
    ax.locator_params(axis="x", integer=True)
    ax.set(yticks=[], ylim=(y + 0.7, -0.7),
           xlabel=f"points more than scratch (grey: within {MARGIN:g} points)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    save(figure, folder, "forest")


def draw_difference(ax, y, row, is_part=False):
    """One line of forest.png: a name, an interval, and the numbers. What is resolved is filled, and
    bold but for one of a single budget below its mean, which is small."""
    difference, (colour, marker) = row["difference"], style_of(row["strategy"])
    is_resolved = difference.verdict not in ("open", "") and not row.get("depends")
    size, width = (8, 2.5) if is_resolved else (6, 1.2)
    style = {"fontsize": 9, "fontweight": "bold" if is_resolved else "normal"}
    name = row["strategy"]
    if is_part:
        size, width, style = 4, 0.8, {"fontsize": 7, "color": "0.35"}
        name = f"{power_of_ten(row['flops'])} FLOPs"
    ax.errorbar([difference.mean], [y], xerr=difference.half, color=colour, marker=marker,
                markersize=size, linewidth=width, capsize=0 if is_part else 3,
                markerfacecolor=colour if is_resolved else "white")
    at_side = {"transform": ax.get_yaxis_transform(), "va": "center", **style}
    ax.text(-0.01, y, name, ha="right", **at_side)
    numbers = plus_minus(difference.mean, difference.half)
    ax.text(1.01, y, f"{numbers} (n = {difference.pairs})", **at_side)


def draw_scores(study, found, levels):
    """Draws scores.png: score, and below it masked-word loss, against FLOPs, with a column for each
    data setting. Dashed lines show what the students lie between. levels: {"score": {name: points},
    "val_loss": {name: nats}}."""
    settings, budgets = list(dict.fromkeys(found.students["data"])), study.budgets
    figure, axes = pyplot().subplots(2, len(settings), figsize=(5 * len(settings), 7), sharex=True,
                                     sharey="row", squeeze=False, subplot_kw={"xscale": "log"})
    left, right = budgets[0] / 1.3, budgets[-1] * 1.3
    axes[0][0].set_xlim(left, right * (right / left) ** 0.35)  # names need room at the right
    for row_of_axes, (value, own_levels) in zip(axes, levels.items()):
        students = found.students.dropna(subset=value)
        shown = [*students[value], *own_levels.values()]
        margin = 0.06 * (max(shown) - min(shown)) or 1.0
        row_of_axes[0].set_ylim(min(shown) - margin, max(shown) + margin)  # shared by the row
        for ax, data in zip(row_of_axes, settings):
            draw_levels(ax, own_levels)
            ends = draw_panel(ax, students[students["data"] == data], study.strategies, value)
            label_ends(ax, ends)
    for upper, lower, data in zip(*axes, settings):
        upper.set_title(data_setting(data), fontsize=11)
        lower.set_xlabel("FLOPs, the teacher's passes included")
        lower.set_xticks(budgets, [power_of_ten(C) for C in budgets])
        lower.minorticks_off()
    axes[0][0].set_ylabel("score (mean over tasks)")
    axes[1][0].set_ylabel("masked-word loss (nats)")
    save(figure, study.out, "scores")


def draw_levels(ax, levels):
    """Dashed lines with their names. levels: {name: height}."""
    for name, value in levels.items():
        ax.axhline(value, color="0.5", linewidth=1, linestyle="--", zorder=0)
        ax.text(0.01, value, name, transform=ax.get_yaxis_transform(), fontsize=8, color="0.35",
                va="bottom")


def draw_panel(ax, students, strategies, value):
    """A line through the means of each strategy, and a dot for each student. The strategies stand a
    little beside each other. Returns where the lines end: [(y, x, name, colour)]."""
    ends = []
    for i, strategy in enumerate(strategies):
        own = students[students["strategy"] == strategy]
        if len(own):
            colour, marker = style_of(strategy)
            means = own.groupby("flops")[value].mean()
            aside = 1.03 ** (i - (len(strategies) - 1) / 2)
            ax.plot(means.index * aside, means, color=colour, marker=marker, linewidth=1.6,
                    markersize=6)
            ax.plot(own["flops"] * aside, own[value], color=colour, marker=marker, linestyle="",
                    markersize=3, alpha=0.4)
            ends.append((means.iloc[-1], means.index[-1] * aside, strategy, colour))
    open_axes(ax)
    return ends


def apart(heights, step):
    """Rising heights of texts, moved up where one would be less than `step` above the last."""
    ladder = step * np.arange(len(heights))
    return ladder + np.maximum.accumulate(heights - ladder)


def label_ends(ax, ends):
    """Writes the lines' names beside their ends, pushed apart where they would overlap."""
    if not ends:
        return
    low, high = ax.get_ylim()
    step = (high - low) * 0.055
    heights = apart([y for y, *_ in sorted(ends)], step)
    # From the top down: what would stand in the title, or where another name went, moves down.
    heights = -apart(-np.minimum(heights, high - step)[::-1], step)[::-1]
    left, right = ax.get_xlim()
    beside = max(x for _, x, *_ in ends) * (right / left) ** 0.03
    for (y, x, name, colour), height in zip(sorted(ends), heights):
        ax.annotate(name, (x, y), xytext=(beside, height), textcoords="data", color=colour,
                    fontsize=9, va="center", annotation_clip=False)


# What a budget is spent on: (key of the bill, label, colour, hatch).
BILL_PARTS = (("student_forward", "student, forward", "#56b4e9", ""),
              ("student_backward", "student, backward", "#0072b2", ""),
              ("teacher_forward", "teacher, forward", "#d55e00", "//"),
              ("loss", "products in the loss", "#999999", ".."))


def draw_bill(found, folder):
    """Draws bill.png: what each strategy's budget was spent on, in percent."""
    bills = {row["strategy"]: [row[f"bill {key}"] for key, *_ in BILL_PARTS] for row in found.kinds}
    figure, ax = pyplot().subplots(figsize=(7, 0.6 + 0.5 * len(bills) + 0.8))
    left = np.zeros(len(bills))
    shares = np.array([[100 * part / sum(bill) for part in bill] for bill in bills.values()])
    for (_, label, colour, hatch), own in zip(BILL_PARTS, shares.T):
        bars = ax.barh(list(bills), own, left=left, color=colour, hatch=hatch, edgecolor="white",
                       label=label)
        ax.bar_label(bars, [f"{share:.0f}%" if share > 6 else "" for share in own],
                     label_type="center", fontsize=9, bbox={"facecolor": "white", "pad": 1.5,
                                                            "edgecolor": "none"})
        left += own
    ax.invert_yaxis()
    ax.set_xlabel("share of the budget (%)")
    ax.legend(frameon=False, ncols=2, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    open_axes(ax)
    save(figure, folder, "bill")
