"""Can the embedded tasks tell models apart? No strategy is compared by a task that cannot.

    python -m tools.gate runs/a runs/b runs/c   weakest first, the teacher last

The gate fine-tunes an untrained network, some students and their teacher, all in the same way, and
prints a table of their scores and what `passes` asks of each task. docs/tasks.md has the commands
that train the models of the project's own gate.
"""
import sys
from pathlib import Path

from files import disk, gluefiles, wordpiece
from files.checkpoints import read_config
from program import cli
from program.cli import UserError

import torch
from pandas import DataFrame

import glue
from measure.scores import points_above_majority
from model import Bert, BertConfig

UNTRAINED = "runs/gate-untrained"


def arguments(argv=None):
    """(models, glue.Settings for all of them). Raises UserError where they make no gate."""
    parser = cli.Parser(prog="-m tools.gate", usage="python -m tools.gate model ... [options]",
                        description="Can the embedded tasks tell models apart?", epilog="example:\n"
                        "  python -m tools.gate runs/weak runs/better runs/teacher --seeds 5")
    parser.add_argument("models", nargs="+", metavar="model",
                        help="runs' folders, BERTs' folders or hub ids: at least a weak student, "
                        "a better one and a teacher")
    parser.add_argument("--seeds", type=cli.whole(2, 1000), default=3, metavar="n",
                        help="fine-tunings of each model, at least 2 (default: %(default)s)")
    args = parser.parse_args(argv)
    if len(args.models) < 3:
        raise UserError("the gate wants a weak student, a better one and a teacher, in this order")
    return args.models, glue.read_settings(["model", "--seeds", str(args.seeds)])


def save_untrained(like, folder):
    """Saves a BERT of the size of `like` and with its tokenizer, whose fresh weights come from
    seed 0, in `folder`."""
    source = disk.fetch(like, ["config.json", *disk.TOKENIZER_FILES])
    config = read_config(source, BertConfig)
    torch.manual_seed(0)
    Bert(config).save_pretrained(folder)
    own = wordpiece.load_tokenizer(str(source))
    wordpiece.save_tokenizer(own, folder, config.max_position_embeddings)


def passes(rows):
    """{condition: whether it is met} by one task. rows: [(mean, standard deviation)] of the models
    in points above the majority answer, the untrained network first and the teacher last."""
    means = [mean for mean, _ in rows]
    rising = all(weaker <= better + 2 for weaker, better in zip(means, means[1:]))
    return {
        "untrained at the majority answer, within 5 points": abs(means[0]) <= 5,
        "teacher at least 20 points above it": means[-1] >= means[0] + 20,
        "students in between, rising with their budget": rising and means[-2] > means[0] + 5,
        "seeds agree within 3 points (untrained and teacher)": max(rows[0][1], rows[-1][1]) <= 3}


def row_of(result):
    """(mean, standard deviation) over seeds of a task's test score, in points above the majority
    answer. A task's first metric counts, as for skills (measure/scores.py)."""
    _, spread = next(iter(result["metrics"]["test"].values()))
    return points_above_majority(result), 100 * (spread or 0)


def verdicts(scored):
    """The gate's table and its verdicts, as text. scored: {model: results of glue.score}."""
    tasks = list(next(iter(scored.values())))
    above = {task: [row_of(results[task]) for results in scored.values()] for task in tasks}
    words = {task: [f"{mean:.1f} +- {spread:.1f}" for mean, spread in rows]
             for task, rows in above.items()}
    lines = ["test scores in points above the majority answer, mean +- deviation over seeds",
             DataFrame(words, [Path(model).name for model in scored]).to_string()]
    for task in tasks:
        failed = [condition for condition, is_met in passes(above[task]).items() if not is_met]
        lines.append(f"{task} {'FAILS: not ' + '; not '.join(failed) if failed else 'passes'}")
    return "\n".join(lines)


def main():
    models, settings = arguments()
    save_untrained(models[0], UNTRAINED)
    scored = {}
    for model in (UNTRAINED, *models):
        cli.say(f"fine-tuning {model} ...")
        scored[model] = glue.score(settings, model, gluefiles.glue_folder(model))
    text = verdicts(scored)
    cli.say(text)
    if "FAILS" in text:
        sys.exit(1)


if __name__ == "__main__":
    cli.program(main)
