"""Can the embedded tasks tell models apart? The table that must be good before any strategy is compared by them.

    python glue.py --gate                         trains what it needs into runs/gate-*: about half an hour on two cores
    python glue.py --gate runs/a runs/b runs/c    weakest first, the teacher last

A task passes if an untrained model is at the majority answer, the teacher far above it, students in between and rising with
their budget, and the seeds of fine-tuning agree. The bounds stand in `passes`.
"""
import shlex
import subprocess
import sys
from pathlib import Path

from plumbing import cli, disk
from plumbing.cli import UserError
from plumbing.huggingface import read_config

import torch

import glue
from model import Bert, BertConfig

# Weakest first. The last one is the teacher: twice the layers, and much longer trained.
MODELS = {"runs/gate-scratch-3e12": "--flops 3e12 --model 2x128", "runs/gate-scratch-1e13": "--flops 1e13 --model 2x128",
          "runs/gate-teacher": "--flops 1e14 --model 4x128 --lr 1e-3"}


def untrained(like, folder):
    """A BERT of the size of `like`, with its tokenizer and with fresh weights of seed 0, in `folder`."""
    import shutil
    source = disk.fetch(like, ["config.json", "tokenizer.json"])
    torch.manual_seed(0)
    Bert(read_config(source, BertConfig)).save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", Path(folder) / "tokenizer.json")


def passes(rows):
    """rows: {model: (mean, standard deviation)} of one task in points, untrained first, teacher last -> {condition: whether it holds}."""
    means, spreads = [mean for mean, _ in rows.values()], [spread for _, spread in rows.values()]
    return {"untrained at the majority answer, within 5 points": abs(means[0]) <= 5,
            "teacher at least 20 points above it": means[-1] >= means[0] + 20,
            "students in between, rising with their budget": all(a <= b + 2 for a, b in zip(means, means[1:])) and means[-2] > means[0] + 5,
            "seeds agree within 3 points (untrained and teacher)": max(spreads[0], spreads[-1]) <= 3}




def run(args):
    if args.data != "stories":
        raise UserError("--gate is for the embedded tasks: leave --data out")
    if args.seeds < 2:
        raise UserError("--gate compares seeds: --seeds 2 or more")
    models = args.model
    if len(models) in (1, 2):
        raise UserError("--gate wants at least a weak student, a better one and a teacher, in this order; without any it trains them")
    if not models:
        for folder, line in MODELS.items():
            command = [sys.executable, str(Path(__file__).parent / "train.py"), *shlex.split(line), "--out", folder]
            cli.say(f"python train.py {line} --out {folder}")
            if subprocess.run(command).returncode:
                raise UserError(f"this training failed: python train.py {line} --out {folder}")
        models = list(MODELS)
    untrained(models[0], "runs/gate-untrained")
    scores = {}
    for model in ("runs/gate-untrained", *models):
        cli.say(f"fine-tuning {model} ...")
        scores[model] = glue.score(args, model, glue.folder_of(model))
    text = table(scores)
    cli.say("\n" + text)
    if "FAILS" in text:
        sys.exit(1)


def table(scores):
    """{model: results of glue.score} -> the gate's table and its verdicts, in points above the majority answer."""
    tasks = list(next(iter(scores.values())))
    lines = ["test scores in points above the majority answer, mean +- standard deviation over seeds", "",
             f"{'':28}" + "".join(f"{task:>18}" for task in tasks)]
    verdicts = []
    above = {}
    for model, results in scores.items():
        cells = []
        for task in tasks:
            score, majority = results[task]["metrics"]["test"], results[task]["majority"]["test"]
            name = next(iter(score))  # the first metric: F1's majority answer is no floor
            mean, spread = 100 * (score[name][0] - majority[name]), 100 * (score[name][1] or 0)
            above.setdefault(task, {})[model] = mean, spread
            cells.append(f"{mean:8.1f} +- {spread:4.1f}")
        lines.append(f"{Path(model).name:28}" + "".join(f"{cell:>18}" for cell in cells))
    for task in tasks:
        failed = [words for words, holds in passes(above[task]).items() if not holds]
        verdicts.append(f"{task:28} {'passes' if not failed else 'FAILS: not ' + '; not '.join(failed)}")
    return "\n".join([*lines, "", *verdicts])
