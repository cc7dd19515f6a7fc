"""Can the embedded tasks tell models apart? No strategy is compared by a task that cannot.

    python -m tools.gate                        trains what it needs into runs/gate-*: half an hour
    python -m tools.gate runs/a runs/b runs/c   weakest first, the teacher last

The gate fine-tunes an untrained network, some students and their teacher, all in the same way, and
prints a table of their scores. A task passes if the untrained network gives no better answers than
the majority answer, if the teacher is far above it, if the students lie in between and rise with
their budget, and if the seeds of fine-tuning agree. `passes` holds the bounds.
"""
import shlex
import subprocess
import sys
from pathlib import Path

from files import disk, gluefiles, wordpiece
from files.checkpoints import read_config
from program import cli
from program.cli import UserError

import torch

import glue
from measure import scores
from model import Bert, BertConfig

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
EXAMPLES = """examples:
  python -m tools.gate
  python -m tools.gate runs/weak runs/better runs/teacher --seeds 5"""
# Weakest first. The last one is the teacher: twice the layers, and trained for much longer.
MODELS = {"runs/gate-scratch-3e12": "--flops 3e12 --model 2x128",
          "runs/gate-scratch-1e13": "--flops 1e13 --model 2x128",
          "runs/gate-teacher": "--flops 1e14 --model 4x128 --lr 1e-3"}
UNTRAINED = "runs/gate-untrained"


def arguments(argv=None):
    """(models, options of glue.py for all of them). Raises UserError where they make no gate."""
    parser = cli.Parser(prog="-m tools.gate", usage="python -m tools.gate [model ...] [options]",
                        description="Can the embedded tasks tell models apart?", epilog=EXAMPLES)
    add = parser.add_argument
    add("models", nargs="*", metavar="model",
        help="runs' folders, BERTs' folders or hub ids: at least a weak student, a better one and "
        "a teacher, in this order (default: the gate trains its own)")
    add("--tasks", default="all", metavar="A,B", help="all (default), or some of "
        + ", ".join(gluefiles.EMBEDDED))
    add("--grid", default="stories", choices=list(glue.GRIDS),
        help="learning rates, batch sizes and epochs, as in glue.py (default: %(default)s)")
    add("--pool", default="mean", choices=["cls", "mean"],
        help="what is classified: [CLS], or the mean over tokens (default: %(default)s)")
    add("--seeds", type=cli.whole(1, 1000), default=3, metavar="n",
        help="fine-tunings of each model, at least 2 (default: %(default)s)")
    add("--seq-len", type=cli.whole(8, 4096), default=128, metavar="T",
        help="longer texts are cut (default: %(default)s)")
    add("--dtype", default="auto", choices=["auto", "fp32", "bf16"],
        help="auto: bf16 autocast where the hardware has it")
    add("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    args = parser.parse_args(argv)
    if args.seeds < 2:
        raise UserError("the gate compares seeds: give --seeds 2 or more")
    if len(args.models) in (1, 2):
        raise UserError("the gate wants at least a weak student, a better one and a teacher, in "
                        "this order; give none, and it trains them")
    shared = glue.read_settings([
        "model", "--tasks", args.tasks, "--grid", args.grid, "--pool", args.pool,
        "--seeds", str(args.seeds), "--seq-len", str(args.seq_len), "--dtype", args.dtype,
        "--device", args.device])
    return args.models, shared


# --------------------------------------------------------------------------------------------------
# The models


def train_models():
    """Trains MODELS, or finds them finished. Returns their folders, weakest first."""
    for folder, words in MODELS.items():
        command = [sys.executable, str(TRAIN), *shlex.split(words), "--out", folder]
        cli.say(f"python train.py {words} --out {folder}")
        if subprocess.run(command, env=cli.environment_of_one()).returncode:
            raise UserError(f"this training failed: python train.py {words} --out {folder}")
    return list(MODELS)


def save_untrained(like, folder):
    """Saves a BERT of the size of `like` and with its tokenizer, whose fresh weights come from
    seed 0, in `folder`."""
    source = disk.fetch(like, ["config.json", *disk.TOKENIZER_FILES])
    config = read_config(source, BertConfig)
    torch.manual_seed(0)
    Bert(config).save_pretrained(folder)
    tokenizer = wordpiece.load_tokenizer(str(source))
    wordpiece.save_tokenizer(tokenizer, folder, config.max_position_embeddings)


# --------------------------------------------------------------------------------------------------
# The verdict


def passes(rows):
    """{condition: whether it is met} by one task. rows: {model: (mean, standard deviation)} in
    points above the majority answer, the untrained network first and the teacher last."""
    means = [mean for mean, _ in rows.values()]
    spreads = [spread for _, spread in rows.values()]
    rising = all(weaker <= better + 2 for weaker, better in zip(means, means[1:]))
    return {
        "untrained at the majority answer, within 5 points": abs(means[0]) <= 5,
        "teacher at least 20 points above it": means[-1] >= means[0] + 20,
        "students in between, rising with their budget": rising and means[-2] > means[0] + 5,
        "seeds agree within 3 points (untrained and teacher)": max(spreads[0], spreads[-1]) <= 3}


def points_above_majority(result):
    """(mean, standard deviation) over seeds of a task's test score, in points of 100.

    A task's first metric counts, as for skills (measure/scores.py)."""
    _, spread = next(iter(result["metrics"]["test"].values()))
    return scores.points_above_majority(result), 100 * (spread or 0)


def table(scores):
    """The gate's table and its verdicts, as text. scores: {model: results of glue.score}."""
    tasks = list(next(iter(scores.values())))
    above = {task: {model: points_above_majority(results[task])
                    for model, results in scores.items()} for task in tasks}
    lines = ["test scores in points above the majority answer, mean +- standard deviation over "
             "seeds", "", f"{'':28}" + "".join(f"{task:>18}" for task in tasks)]
    for model in scores:
        pairs = [above[task][model] for task in tasks]
        cells = [f"{mean:8.1f} +- {spread:4.1f}" for mean, spread in pairs]
        lines += [f"{Path(model).name:28}" + "".join(f"{cell:>18}" for cell in cells)]
    lines += [""]
    for task in tasks:
        failed = [words for words, is_met in passes(above[task]).items() if not is_met]
        verdict = "FAILS: not " + "; not ".join(failed) if failed else "passes"
        lines += [f"{task:28} {verdict}"]
    return "\n".join(lines)


def main():
    models, args = arguments()
    models = models or train_models()
    save_untrained(models[0], UNTRAINED)
    scores = {}
    for model in (UNTRAINED, *models):
        cli.say(f"fine-tuning {model} ...")
        scores[model] = glue.score(args, model, gluefiles.glue_folder(model))
    text = table(scores)
    cli.say("\n" + text)
    if "FAILS" in text:
        sys.exit(1)


if __name__ == "__main__":
    cli.program(main)
