"""Runs at a glance: what each one is, how far it is, what it reached, and all curves in one figure.

    python -m tools.glance                       the runs in runs/, also those of its comparisons
    python -m tools.glance runs/compare-demo --out demo.png

Nothing is written into a run's folder, and a run that goes on is not disturbed: its files are read,
not its lock. The figure shows the masked-word loss on held-out text against FLOPs. Losses on
different texts cannot be compared, so each text has a panel. A run that began with the weights of
another one (--start-from) begins in the figure where that one ended.
"""
import json
from pathlib import Path
from typing import NamedTuple

from files import checkpoints, disk, gluefiles
from program import cli
from program.cli import UserError
from running.options import COPIED

import budget
from measure import scores
from reporting import figures
from reporting.card import on_plateau
from reporting.words import listed

EXAMPLES = """examples:
  python -m tools.glance
  python -m tools.glance runs/compare-demo --out demo.png"""
HEADINGS = ("run", "strategy", "size", "data", "FLOPs", "loss", "unigram", "score", "state")
WITHIN = ("*", "*/*", "*/cells/*")  # where runs lie below the folder


class FoundRun(NamedTuple):
    """A run, as its files say."""
    words: tuple     # its line in the table, by HEADINGS
    strategy: str
    state: str       # "finished", or how much of the budget is spent
    text: str        # and the vocabulary: the panel in which its curve stands
    losses: list     # the rows of its log with a masked-word loss; FLOPs before the run count, too


def arguments(argv=None):
    """The options. Raises UserError where they are wrong."""
    parser = cli.Parser(prog="-m tools.glance", usage="python -m tools.glance [folder] [options]",
                        description="Runs at a glance: a table, and their curves in one figure.",
                        epilog=EXAMPLES)
    parser.add_argument("folder", nargs="?", default="runs", help="where runs lie (default: runs)")
    parser.add_argument("--out", metavar="FILE",
                        help="the figure, a .png (default: curves.png in the folder)")
    args = parser.parse_args(argv)
    args.folder = disk.path_of(args.folder)
    args.out = args.folder / "curves.png" if args.out is None else disk.path_of(args.out)
    if is_run(args.folder):
        raise UserError(f"{args.folder} is a run itself: give the folder that it lies in")
    if args.out.suffix != ".png" or args.out.is_dir() or is_run(args.out.parent):
        raise UserError(f"--out {args.out} is no place for a figure: give a name that ends in "
                        ".png, outside of a run's folder")
    return args


# --------------------------------------------------------------------------------------------------
# What the files say


def is_run(path):
    return (path / "run.json").exists()


def runs_in(folder):
    """The FoundRuns below a folder, by name. What is damaged is named in a line."""
    found = []
    for path in sorted({path for pattern in WITHIN for path in folder.glob(pattern)}):
        name = str(path.relative_to(folder))
        try:
            if is_run(path):
                found.append(run_in(path, name))
        except UserError as mistake:
            cli.say(f"skipped: {name}: {cli.one_line(mistake)}")
        except OSError as failure:
            cli.say(f"skipped: {name}: {cli.system_error(failure)}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            cli.say(f"skipped: {name}: its run.json, log.jsonl or glue.json is not that of a run "
                    "of train.py")
    return found


def run_in(path, name):
    """The FoundRun in a folder. Raises UserError where it is damaged, and an error of any kind
    where its files are those of another program."""
    record = disk.read_json(path / "run.json")
    disk.check_files(path, ["log.jsonl"])  # with the checksum that a finished run has of it
    settings, is_finished = record["settings"], bool(record.get("finished"))
    before, C = record.get("flops_before", 0), settings["flops_budget"]  # None: nobody knows
    rows = rows_of(path / "log.jsonl")
    state = "finished" if is_finished else f"{rows[-1]['flops'] / C if rows else 0:.0%}"
    losses = [{**row, "flops": row["flops"] + (before or 0)} for row in rows
              if row.get("val_loss") is not None]
    strategy = settings["strategy"] + COPIED * (settings.get("init") == "teacher")
    figures.style_of(strategy)  # raises where there is no such strategy
    text = ", ".join(Path(entry).name or "text" for entry in settings["data"])
    unique = settings["unique_tokens"]
    cost, last = cli.flops(C), losses[-1] if losses else None
    if before != 0:
        cost += " + unknown before" if before is None else f" + {cli.flops(before)} before"
    words = (name, strategy, str(budget.size(settings["model"])),
             text + (f", {unique:,} distinct tokens" if unique else ""), cost,
             *(f"{last[key]:.3f}" if last else "" for key in ("val_loss", "unigram_loss")),
             score_in(path) if is_finished else "",
             state + ", on the plateau" * (last is not None and on_plateau(last)))
    return FoundRun(words, strategy, state,
                    f"{text}, {settings['vocab_size']:,} words and word pieces", losses)


def rows_of(log):
    """The rows of a log, without lines that are damaged: of a run that goes on, the last one may be
    half written."""
    rows = []
    for line in disk.read_text(log).splitlines() if log.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class Scored(NamedTuple):
    """What glue.json alone says of a task, as `scores.summary` reads it."""
    scored: tuple
    majority: None = None


def score_in(path):
    """'60.0 (2 tasks)': the mean over tasks of the test scores in a model's glue.json, "" where it
    has none. The newest fine-tuning says how, and those that were made otherwise, or of another
    model, do not count."""
    cells = gluefiles.read_glue_json(path / "glue.json")["cells"]
    if cells and (path / "model.safetensors").exists():  # students.zip has no weights
        sha256 = checkpoints.model_sha256(path)[:16]
        cells = [cell for cell in cells if cell.get("model_sha256") == sha256]
    by_task = {}
    for cell in cells:
        if all(cell[key] == cells[-1][key] for key in ("data", "pool", "seq_len")):
            by_task.setdefault(cell["task"], []).append(cell)
    results = {name: scores.summary(Scored(tuple(own[0]["scores"])), own)
               for name, own in by_task.items()}
    if not results:
        return ""
    return f"{100 * scores.score_of(results):.1f} ({cli.counted(len(results), 'task')})"


# --------------------------------------------------------------------------------------------------
# The table and the figure


def table_lines(rows):
    """Rows of words as lines of text, each column as wide as its widest word."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{word:{width}}" for word, width in zip(row, widths)).rstrip()
            for row in rows]


def draw_panels(panels, path):
    """Draws the curves of runs into a PNG. panels: {text: {label of a curve: its FoundRun}}."""
    pyplot = figures.pyplot()
    heights = [max(3.5, 0.2 * len(runs) + 1) for runs in panels.values()]
    figure, axes = pyplot.subplots(len(panels), 1, squeeze=False, layout="constrained",
                                   figsize=(9, sum(heights)), height_ratios=heights)
    for ax, (text, runs) in zip(axes[:, 0], panels.items()):
        draw_text(ax, runs)
        ax.set_title(text, fontsize=11, parse_math=False)  # a folder's name may hold a $
    axes[-1][0].set_xlabel("FLOPs, those before a run included")
    disk.replace(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    pyplot.close(figure)


def draw_text(ax, runs):
    """Draws the curves of one text, the highest named first, and dashed the losses of counting its
    words."""
    for label, run in sorted(runs.items(), key=lambda pair: -pair[1].losses[-1]["val_loss"]):
        colour, marker = figures.style_of(run.strategy)
        ax.plot([row["flops"] for row in run.losses], [row["val_loss"] for row in run.losses],
                color=colour, marker=marker, markersize=3.5, label=label,
                linestyle="-" if run.state == "finished" else ":")
    for key, name in (("unigram_loss", "unigram (plateau)"), ("neighbour_loss", "both neighbours")):
        # The samples of a text differ a little.
        losses = sorted({round(run.losses[-1][key], 3) for run in runs.values()})
        for loss in losses:
            ax.axhline(loss, color="0.5", linewidth=1, linestyle="--", zorder=0)
        ax.text(1, losses[-1], name, transform=ax.get_yaxis_transform(), ha="right", va="bottom",
                fontsize=8, color="0.35")
    ax.set_xscale("log", nonpositive="mask")  # a validation at 0 FLOPs has no place on it
    ax.set_ylabel("masked-word loss (nats)")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figures.open_axes(ax)


def main():
    args = arguments()
    found = runs_in(args.folder)
    if not found:
        raise UserError(f"{args.folder} holds no runs: python train.py --flops 1e12 makes one in "
                        "runs/")
    rows = [(str(number), *run.words) for number, run in enumerate(found, start=1)]
    cli.say("\n".join(table_lines([("", *HEADINGS), *rows])))
    panels, without = {}, []
    for number, run in enumerate(found, start=1):
        if run.losses and run.losses[-1]["flops"] > 0:  # it has a place on a logarithmic axis
            label = f"{number} {run.strategy} {run.words[2]}"
            label += "" if run.state == "finished" else f", {run.state}"
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
