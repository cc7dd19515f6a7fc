"""Figures: a run's curve, and of a comparison its differences, its scores and its bill."""
import math
from pathlib import Path

from files import disk
from running.options import COPIED

import distill
from measure.statistics import MARGIN
from reporting.words import data_setting, difference_words, power_of_ten

# Okabe and Ito's palette, which colour-blind readers can tell apart. A strategy has the same colour
# and marker in all figures.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
MARKERS = "osD^vPX*"
RESOLVED = ("ahead", "behind", "equal")  # verdicts that say something
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
# A comparison. found: what compare.py found, its Found


def draw_forest(found, folder):
    """Draws forest.png: for each data setting and strategy the pooled difference to scratch with
    its interval, beside zero and the band in which students count as equal. What is resolved is
    bold and filled. Where it is a mean over several budgets, thin lines below it show each."""
    lines, last = [], None  # (height, row, whether it is of one budget), from the top down
    names, y = {}, 0.0      # {height: the data setting that is named there}
    for row in found.pooled:
        if row["data"] != last:
            y += bool(names)
            names[y], last = data_setting(row["data"]), row["data"]
        y += 1
        lines.append((y, row, False))
        if len(row["parts"]) == 1 < found.students["flops"].nunique():  # which of the budgets?
            lines[-1] = y, row["parts"][0] | row, False
        for part in row["parts"] if len(row["parts"]) > 1 else []:
            y += PART
            lines.append((y, part, True))
    figure, ax = pyplot().subplots(figsize=(7.5, 1.1 + 0.42 * (y + 1)))
    ax.axvspan(-MARGIN, MARGIN, color="0.92", linewidth=0)
    ax.axvline(0, color="0.3", linewidth=1)
    for height, name in names.items():
        ax.text(0, height, name, transform=ax.get_yaxis_transform(), fontsize=9, color="0.35",
                va="center", ha="right", style="italic")
    for line in lines:
        draw_difference(ax, *line)
    ax.set_yticks([])
    ax.set_ylim(y + 0.7, -0.7)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel(f"points more than scratch (grey: within {MARGIN:g} points)")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    save(figure, folder, "forest")


def draw_difference(ax, y, row, is_part):
    """One line of forest.png: a name, an interval, and the numbers. is_part: whether it is of one
    budget below the mean over several, and so small."""
    difference, (colour, marker) = row["difference"], style_of(row["strategy"])
    is_resolved = difference.verdict in RESOLVED and not row.get("depends")
    is_bold = is_resolved and not is_part
    size, width = (8, 2.5) if is_bold else (6, 1.2)
    style = {"fontsize": 9, "fontweight": "bold" if is_bold else "normal"}
    budget = f"{power_of_ten(row['flops'])} FLOPs" if "flops" in row else ""
    name = ", ".join(filter(None, [row["strategy"], budget]))
    if is_part:
        size, width, name, style = 4, 0.8, budget, {"fontsize": 7, "color": "0.35"}
    ax.errorbar([difference.mean], [y], xerr=difference.half, color=colour, marker=marker,
                markersize=size, linewidth=width, capsize=0 if is_part else 3,
                markerfacecolor=colour if is_resolved else "white")
    at_side = {"transform": ax.get_yaxis_transform(), "va": "center", **style}
    ax.text(-0.01, y, name, ha="right", **at_side)
    ax.text(1.01, y, f"{difference_words(difference)} (n = {difference.pairs})", **at_side)


def draw_scores(study, found, levels):
    """Draws scores.png: score, and below it masked-word loss, against FLOPs.

    Each strategy has a line through its means and a dot for each student. Each data setting has a
    column. Dashed lines show what the students lie between. levels: {"score": {name: points},
    "val_loss": {name: nats}}."""
    budgets, students = study.budgets, found.students
    settings = list(dict.fromkeys(students["data"]))
    figure, axes = pyplot().subplots(2, len(settings), figsize=(5 * len(settings), 7),
                                     sharex=True, sharey="row", squeeze=False)
    panels = []  # (axes, where its lines end); names are written once the limits are known
    for column, data in zip(axes.T, settings):
        for ax, value in zip(column, levels):
            own = students[students["data"] == data].dropna(subset=value)
            panels.append((ax, draw_panel(ax, own, study.strategies, value)))
        column[0].set_title(data_setting(data), fontsize=11)
        column[1].set_xlabel("FLOPs, the teacher's passes included")
        column[1].set_xticks(budgets, [power_of_ten(C) for C in budgets])
        column[1].minorticks_off()
    # Shared by all panels. The names need room at the right.
    left, right = budgets[0] / 1.3, budgets[-1] * 1.3
    axes[0][0].set_xlim(left, right * (right / left) ** 0.35)
    for row_of_axes, (value, own) in zip(axes, levels.items()):
        if students[value].notna().any():
            draw_levels(row_of_axes, own, students[value])
    for ax, ends in panels:
        label_ends(ax, ends)
    axes[0][0].set_ylabel("score (mean over tasks)")
    axes[1][0].set_ylabel("masked-word loss (nats)")
    save(figure, study.out, "scores")


def draw_levels(row_of_axes, levels, values):
    """Dashed lines for what the students lie between, and limits that show all of them."""
    low, high = min(values.min(), *levels.values()), max(values.max(), *levels.values())
    margin = 0.06 * (high - low) or 1.0
    row_of_axes[0].set_ylim(low - margin, high + margin)  # shared by the row
    for ax in row_of_axes:
        for name, value in levels.items():
            ax.axhline(value, color="0.5", linewidth=1, linestyle="--", zorder=0)
            ax.text(0.01, value, name, transform=ax.get_yaxis_transform(), fontsize=8,
                    color="0.35", va="bottom")


def draw_panel(ax, students, strategies, value):
    """Draws one panel of scores.png: a column of the students of one data setting. Returns where
    the strategies' lines end: [(y, x, name, colour)].

    The strategies stand a little beside each other, so that their dots can be told apart."""
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
    ax.set_xscale("log")
    open_axes(ax)
    return ends


def label_ends(ax, ends):
    """Writes the lines' names beside their ends, pushed apart where they would overlap."""
    if not ends:
        return
    low, high = ax.get_ylim()
    step = (high - low) * 0.055
    heights = apart([y for y, *_ in sorted(ends)], step)
    # From the top down: what would stand in the title, or where another name went, moves down.
    heights = [-y for y in apart([-min(y, high - step) for y in reversed(heights)], step)][::-1]
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
    """Draws bill.png: what each strategy's budget was spent on."""
    bills = {row["strategy"]: row for row in found.kinds}
    totals = [sum(row[f"bill {key}"] for key, *_ in BILL_PARTS) for row in bills.values()]
    figure, ax = pyplot().subplots(figsize=(7, 0.6 + 0.5 * len(bills) + 0.8))
    left, small = [0.0] * len(bills), [[] for _ in bills]
    for key, label, colour, hatch in BILL_PARTS:
        shares = [100 * row[f"bill {key}"] / total for row, total in zip(bills.values(), totals)]
        bars = ax.barh(list(bills), shares, left=left, color=colour, hatch=hatch,
                       edgecolor="white", label=label)
        ax.bar_label(bars, [f"{share:.0f}%" if share > 6 else "" for share in shares],
                     label_type="center", fontsize=9,
                     color="white" if colour == "#0072b2" else "black",
                     bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5})
        left = [start + share for start, share in zip(left, shares)]
        for words, share in zip(small, shares):
            if 0 < share <= 6:  # too narrow for its number, which stands beside the bar
                words.append(f"{share:.1g}% {key.replace('_', ' ')}")
    for y, words in enumerate(small):
        ax.text(101, y, "\n".join(words), va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set_xlabel("share of the budget (%)")
    ax.legend(frameon=False, ncols=2, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    open_axes(ax)
    save(figure, folder, "bill")
