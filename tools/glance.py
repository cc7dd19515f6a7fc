"""Runs at a glance: what each one is, how far it is, what it reached, and all curves in one figure.

    python -m tools.glance                       the runs in runs/, also those of its comparisons
    python -m tools.glance runs/compare-demo --out demo.png

Nothing is written into a run's folder, and runs that go on are not disturbed. The figure shows the
masked-word loss on held-out text against FLOPs. Losses on different texts cannot be compared, so
each text has a panel. A run that began with the weights of another one (--start-from) begins in the
figure where that one ended.
"""
from pathlib import Path

from files import disk
from program import cli
from program.cli import UserError

from reporting import curves, folders
from reporting.card import on_plateau
from reporting.words import listed

EXAMPLES = """examples:
  python -m tools.glance
  python -m tools.glance runs/compare-demo --out demo.png"""
HEADINGS = ("", "run", "strategy", "size", "data", "FLOPs", "loss", "unigram", "score", "state")


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
    if args.out.suffix != ".png" or args.out.is_dir():
        raise UserError(f"--out {args.out} is no name of a figure: give one that ends in .png")
    if args.out.parent.is_dir() and folders.is_run(args.out.parent):
        raise UserError(f"--out {args.out} lies in a run's folder: choose another place")
    return args


# --------------------------------------------------------------------------------------------------
# The table and the figure


def row_of(number, run):
    """The words of a run's line in the table."""
    settings, losses = run.settings, run.losses
    flops = cli.flops(settings["flops_budget"])
    if run.before != 0:
        flops += " + " + ("unknown" if run.before is None else cli.flops(run.before)) + " before"
    loss, unigram, state = "", "", "finished" if run.finished else how_far(run)
    if losses:
        loss, unigram = (f"{losses[-1][key]:.3f}" for key in ("val_loss", "unigram_loss"))
        state += ", on the plateau" * on_plateau(losses[-1])
    score = f"{100 * run.score[0]:.1f} ({cli.counted(run.score[1], 'task')})" if run.score else ""
    return (str(number), run.name, run.strategy, settings["model"], data_of(run), flops, loss,
            unigram, score, state)


def how_far(run):
    return f"{100 * run.spent / run.settings['flops_budget']:.0f}%"


def data_of(run, with_limit=True):
    """What a run was trained on, in words."""
    name = ", ".join(Path(str(entry)).name or "text" for entry in run.settings["data"])
    unique = run.settings.get("unique_tokens")
    return f"{name}, {unique:,} distinct tokens" if unique and with_limit else name


def table(rows):
    """Rows of words as lines of text, each column as wide as its widest word."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(f"{word:{width}}" for word, width in zip(row, widths)).rstrip()
                     for row in rows)


def panels_of(found):
    """{text: [Curve]} of the runs with a masked-word loss. A text that was cut by another tokenizer
    counts as another one."""
    panels = {}
    for number, run in enumerate(found, start=1):
        before = run.before or 0
        points = [(before + row["flops"], row["val_loss"]) for row in run.losses
                  if before + row["flops"] > 0]
        if points:
            label = f"{number} {run.strategy} {run.settings['model']}"
            label += "" if run.finished else f", {how_far(run)}"
            text = f"{data_of(run, False)}, {run.settings['vocab_size']:,} words and word pieces"
            last = run.losses[-1]
            panels.setdefault(text, []).append(curves.Curve(
                label, run.strategy, points, last["unigram_loss"], last["neighbour_loss"],
                run.finished))
    return panels


def remarks(found, panels):
    """Lines that say which runs the figure does not show, or does not name."""
    headless = [str(number) for number, run in enumerate(found, start=1)
                if run.validations and not run.losses]
    shown, lines = sum(map(len, panels.values())), []
    if headless:
        lines += [f"not in the figure: {listed(headless)}, since nothing in their loss predicts "
                  "words"]
    if len(found) > shown + len(headless):
        lines += ["not in the figure: runs that have just begun"]
    if any(len(of_text) > curves.MOST_LABELS for of_text in panels.values()):
        lines += [f"the figure names the {curves.MOST_LABELS} curves with the lowest losses"]
    return lines


def main():
    args = arguments()
    if not args.folder.is_dir():
        raise UserError(f"there is no folder {args.folder}: python train.py --flops 1e12 makes a "
                        "first run in runs/")
    if folders.is_run(args.folder):
        raise UserError(f"{args.folder} is a run itself: give the folder that it lies in")
    found = folders.runs_in(args.folder)
    if not found:
        raise UserError(f"{args.folder} holds no runs: python train.py --flops 1e12 makes one in "
                        "runs/")
    cli.say(table([HEADINGS, *(row_of(number, run) for number, run in enumerate(found, 1))]))
    panels = panels_of(found)
    for line in remarks(found, panels):
        cli.say(line)
    if panels:
        curves.draw_curves(panels, args.out)
        cli.say(f"curves: {args.out}")


if __name__ == "__main__":
    cli.program(main)
