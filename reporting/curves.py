"""The curves of many runs in one figure: masked-word loss against FLOPs."""
import math
from typing import NamedTuple

from files import disk

from reporting import figures
from reporting.words import power_of_ten

LABEL = 0.165     # inches from one label to the next, where they stand close
MOST_LABELS = 40  # in a panel: the curves with the lowest losses have them


class Curve(NamedTuple):
    """What the figure shows of one run."""
    label: str
    strategy: str
    points: list         # [(FLOPs, masked-word loss on held-out text)], FLOPs above 0
    unigram: float       # the two losses of counting words, in nats
    neighbours: float
    finished: bool       # the line of a run that is not finished is dotted


def draw_curves(panels, path):
    """Draws the curves of many runs into a PNG. panels: {text: [Curve]}; losses on different texts
    cannot be compared, so each text has a panel."""
    heights = [max(3.5, LABEL * (min(len(curves), MOST_LABELS) + 4)) for curves in panels.values()]
    pyplot = figures.pyplot()
    figure, axes = pyplot.subplots(len(panels), 1, squeeze=False, layout="constrained",
                                   figsize=(7, sum(heights) + 0.7 * len(heights)),
                                   height_ratios=heights)
    for ax, height, (text, curves) in zip(axes[:, 0], heights, panels.items()):
        ends = draw_text(ax, curves)
        ax.set_title(text, fontsize=11, parse_math=False)  # a folder's name may hold a $
        figures.label_ends(ax, ends, LABEL / height, leaders=True)
    axes[-1][0].set_xlabel("FLOPs, those before a run included")
    # The labels stand outside the axes: "tight" makes room for them.
    disk.replace(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150,
                                                        bbox_inches="tight"))
    pyplot.close(figure)


def draw_text(ax, curves):
    """Draws the curves of one text, and the losses of counting its words as dashed lines. Returns
    where the lines with a label end: [(y, x, label, colour)]."""
    flops = [x for curve in curves for x, _ in curve.points]
    first, last = min(flops), max(flops)
    levels, ends = [], []
    for key, name in (("unigram", "unigram (plateau)"), ("neighbours", "both neighbours")):
        heights = sorted({round(getattr(curve, key), 3) for curve in curves})
        for y in heights:  # samples of one text differ a little
            ax.plot([first, last], [y, y], color="0.5", linewidth=1, linestyle="--", zorder=0)
        levels.append((heights[-1], last, name, "0.35"))
    for curve in curves:
        colour, marker = figures.style_of(curve.strategy)
        ax.plot(*zip(*curve.points), color=colour, marker=marker, linewidth=1.4, markersize=3.5,
                linestyle="-" if curve.finished else ":")
        x, y = curve.points[-1]
        ends.append((y, x, curve.label, colour))
    ax.set_xscale("log")
    ax.set_xlim(first / 1.15, last * 1.15)
    ticks = ticks_between(first, last)
    ax.set_xticks(ticks, [power_of_ten(flops) for flops in ticks])
    ax.minorticks_off()
    ax.set_ylabel("masked-word loss (nats)")
    figures.open_axes(ax)
    return levels + sorted(ends)[:MOST_LABELS]


def ticks_between(first, last):
    """The numbers of FLOPs that the axis names: powers of ten, and in a short span 2 and 5 times
    those, too."""
    digits = (1, 2, 5) if last < 100 * first else (1,)
    exponents = range(int(math.log10(first)), int(math.log10(last)) + 1)
    ticks = [digit * 10 ** exponent for exponent in exponents for digit in digits]
    return [x for x in ticks if first <= x <= last] or sorted({first, last})
