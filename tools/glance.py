"""Runs at a glance: what each one is, how far it is, what it reached, and all curves in one figure.

    python -m tools.glance                       the runs in runs/, also those of its comparisons
    python -m tools.glance runs/compare-demo --out demo.png

Nothing is written into a run's folder, and a run that goes on is not disturbed. The figure shows
the masked-word loss on held-out text against FLOPs. Losses on different texts cannot be compared,
so each text has a panel. A run that began with the weights of another one (--start-from) begins in
the figure where that one ended.
"""
import json
from pathlib import Path
from typing import NamedTuple

from files import disk
from program import cli
from program.cli import UserError
from running.options import COPIED

from pandas import DataFrame

import budget
from reporting import figures
from reporting.card import on_plateau
from reporting.words import listed

WITHIN = ("*", "*/*", "*/cells/*")  # where runs lie below the folder


class FoundRun(NamedTuple):
    """A run, as its files say."""
    words: dict   # its line in the table, {heading: word}
    text: str     # and the vocabulary: the panel in which its curve stands
    losses: list  # the rows of its log with a masked-word loss; FLOPs before the run count, too


def arguments(argv=None):
    """The options. Raises UserError where they are wrong."""
    parser = cli.Parser(prog="-m tools.glance", usage="python -m tools.glance [folder] [options]",
                        description="Runs at a glance: a table, and their curves in one figure.",
                        epilog="example:\n  python -m tools.glance runs/compare-demo")
    parser.add_argument("folder", nargs="?", type=disk.path_of, default="runs",
                        help="where runs lie (default: runs)")
    parser.add_argument("--out", metavar="FILE", type=disk.path_of,
                        help="the figure, a .png (default: curves.png in the folder)")
    args = parser.parse_args(argv)
    args.out = args.out or args.folder / "curves.png"
    if args.out.suffix != ".png" or args.out.is_dir() or (args.out.parent / "run.json").exists():
        raise UserError(f"{args.out} is no place for a figure: give --out a name that ends in "
                        ".png, outside of a run's folder")
    return args


# --------------------------------------------------------------------------------------------------
# What the files say


def runs_in(folder):
    """The FoundRuns below a folder, by name. What is damaged is named in a line."""
    found = []
    for path in sorted(path for pattern in WITHIN for path in folder.glob(f"{pattern}/run.json")):
        name = str(path.parent.relative_to(folder))
        try:
            found.append(run_in(path.parent, name))
        except (UserError, OSError) as failure:
            cli.say(f"skipped: {name}: {cli.one_line(failure)}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            cli.say(f"skipped: {name}: its run.json or log.jsonl is not that of a run of train.py")
    return found


def run_in(path, name):
    """The FoundRun in a folder. Raises UserError where it is damaged, and an error of any kind
    where its files are those of another program."""
    record = disk.read_json(path / "run.json")
    disk.check_files(path, ["log.jsonl"])  # with the checksum that a finished run has of it
    settings, before = record["settings"], record.get("flops_before", 0)  # None: nobody knows
    C, rows = settings["flops_budget"], rows_of(path / "log.jsonl")
    losses = [{**row, "flops": row["flops"] + (before or 0)} for row in rows
              if row.get("val_loss") is not None]
    strategy = settings["strategy"] + COPIED * (settings.get("init") == "teacher")
    figures.style_of(strategy)  # raises where there is no such strategy
    text = ", ".join(Path(entry).name or "text" for entry in settings["data"])
    unique = settings["unique_tokens"]
    words = {"run": name, "strategy": strategy, "size": str(budget.size(settings["model"])),
             "data": text + (f", {unique:,} distinct tokens" if unique else ""),
             "FLOPs": cli.flops(C), "before": "unknown" if before is None else cli.flops(before),
             "loss": "", "unigram": "", "plateau": "", "state": "finished"}
    if losses:
        words |= {"loss": f"{losses[-1]['val_loss']:.3f}",
                  "unigram": f"{losses[-1]['unigram_loss']:.3f}",
                  "plateau": "on it" if on_plateau(losses[-1]) else ""}
    if not record.get("finished"):
        words["state"] = f"{rows[-1]['flops'] / C if rows else 0:.0%}"
    return FoundRun(words, f"{text}, {settings['vocab_size']:,} words and word pieces", losses)


def rows_of(log):
    """The rows of a log. The last line of a run that goes on may be half written: it ends there."""
    rows = []
    for line in disk.read_text(log).splitlines() if log.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


# --------------------------------------------------------------------------------------------------
# The table and the figure


def draw_panels(panels, path):
    """Draws the curves of runs into a PNG. panels: {text: {label of a curve: its FoundRun}}."""
    pyplot = figures.pyplot()
    heights = [max(3.5, 0.2 * len(runs) + 1) for runs in panels.values()]
    figure, axes = pyplot.subplots(len(panels), 1, squeeze=False, layout="constrained",
                                   figsize=(9, sum(heights)), height_ratios=heights)
    for ax, (text, runs) in zip(axes[:, 0], panels.items()):
        draw_text(ax, runs)
        ax.set_title(text, fontsize=11, parse_math=False)  # a folder's name may hold a $
        ax.set_xlabel("FLOPs, those before a run included")
    disk.replace(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    pyplot.close(figure)


def draw_text(ax, runs):
    """Draws the curves of one text, the highest named first, and dashed the losses of counting its
    words."""
    for label, run in sorted(runs.items(), key=lambda pair: -pair[1].losses[-1]["val_loss"]):
        colour, marker = figures.style_of(run.words["strategy"])
        ax.plot([row["flops"] for row in run.losses], [row["val_loss"] for row in run.losses],
                color=colour, marker=marker, markersize=3.5, label=label,
                linestyle="-" if run.words["state"] == "finished" else ":")
    ax.set_xscale("log", nonpositive="mask")  # a validation at 0 FLOPs has no place on it
    ax.set_ylabel("masked-word loss (nats)")
    figures.draw_counting_losses(ax, run.losses[-1])  # other samples of the text differ a little
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.2, 0.5))
    figures.open_axes(ax)


def main():
    args = arguments()
    found = runs_in(args.folder)
    if not found:
        raise UserError(f"{args.folder} holds no runs: python train.py --flops 1e12 makes one")
    cli.say(DataFrame([run.words for run in found], range(1, len(found) + 1)).to_string())
    panels, without = {}, []
    for number, run in enumerate(found, start=1):
        if run.losses and run.losses[-1]["flops"] > 0:  # it has a place on a logarithmic axis
            label = "{} {strategy} {size}, {state}".format(number, **run.words)
            panels.setdefault(run.text, {})[label] = run
        else:
            without.append(str(number))
    if without:
        cli.say(f"not in the figure: {listed(without)}, which have just begun, or whose loss "
                "predicts no words")
    if panels:
        draw_panels(panels, args.out)
        cli.say(f"curves: {args.out}")


if __name__ == "__main__":
    cli.program(main)
