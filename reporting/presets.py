"""What the settings of a comparison mean: presets, lists, and what follows from what was asked.
FIXED are the settings that make a comparison this one and no other: compare.json has their texts.
"""
import shlex
from dataclasses import replace
from pathlib import Path

from files import disk
from program import cli
from program.cli import UserError
from running.machine import cores
from running.options import COPIED, with_defaults, words_of

import torch

import distill
import glue

FIXED = ("model", "teacher", "head_teacher", "teacher_model", "teacher_flops", "data", "lr",
         "train_options", "distil_options", "glue_data", "tasks", "glue_grid", "glue_seeds",
         "glue_options")
STUDENTS = (*distill.STRATEGIES, *(name + COPIED for name in distill.STRATEGIES))

# Options of compare.py, for those that are not given: first those of all presets.
ALL = "--data stories --glue-data stories --teacher-flops 0 --train-options ''"
PRESETS = {
    "demo": """--strategies scratch,kd,tinybert,minilm --budgets 1e12 --unique-tokens inf --seeds 3
        --model 2x128 --teacher-model 4x128 --teacher-flops 1e13
        --tasks acceptability,paraphrase --glue-seeds 1""",
    # The rates are those of the best development score at 3e12 FLOPs (docs/LOG.md).
    "stories": """--strategies scratch,kd,tinybert,minilm --budgets 1e12,3e12,1e13 --seeds 12
        --unique-tokens inf,1e4 --model 2x128 --teacher-model 4x128 --teacher-flops 1e14
        --tasks acceptability,paraphrase,entailment --glue-seeds 2
        --lr scratch=2e-3,kd=2e-3,tinybert=4e-3,minilm=4e-3""",
    # On folders of real text and of GLUE's files. The second teacher is the first one with a head
    # that masked language modelling gave back to it (docs/clusters.md says how).
    "books": """--strategies scratch,kd,tinybert,minilm --budgets 1e13,3e13,1e14
        --unique-tokens inf,3e5 --seeds 4 --model 2x192h12
        --teacher sentence-transformers/all-MiniLM-L6-v2 --teacher-model 6x384h12
        --head-teacher runs/books-teacher --data books --glue-data glue_data
        --tasks cola,mrpc,stsb,rte --glue-seeds 2 --glue-grid quick
        --train-options '--seq-len 64 --batch-size 32'""",
    "paper": """--strategies scratch,kd,tinybert,minilm --budgets 1.5e18,9e18 --seeds 1
        --unique-tokens inf,2.6e9 --model 6x768 --teacher bert-base-uncased --teacher-model 12x768
        --data wikimedia/wikipedia:20231101.en --glue-data nyu-mll/glue --glue-grid paper
        --tasks mnli,qqp,qnli,sst2,mrpc,rte,cola --glue-seeds 3 --train-options --paper""",
}

# Options of train.py that are a student's own, those that only distilled ones may have, and options
# of glue.py that all may have.
OF_A_STUDENT = ("--strategy", "--flops", "--model", "--data", "--seed", "--unique-tokens",
                "--teacher", "--start-from", "--init", "--lr", "--out", "--dry-run")
ONLY_DISTILLED = "--mlm-finish", "--temperature", "--relation-heads", "--teacher-layer"
MORE_OF_GLUE = "--pool", "--seq-len", "--dtype", "--device"


def strategies(text):
    """"scratch,kd" -> ("scratch", "kd"), each once."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in STUDENTS:
            raise UserError(f"{name!r} is none of {', '.join(distill.STRATEGIES)}, alone or with "
                            f"{COPIED} behind it")
    if "scratch" not in names:
        raise UserError("there is no scratch, and nothing to compare with: add it")
    return names


def budgets(text):
    """"3e12,1e12" -> (10 ** 12, 3 * 10 ** 12), each once, from the smallest on."""
    return tuple(sorted(set(map(cli.number, text.split(",")))))


def amounts(text):
    """"inf,1e4" -> (None, 10000), each once. None stands for unlimited data."""
    read = [None if word == "inf" else cli.number(word) for word in text.split(",")]
    return tuple(dict.fromkeys(read))


def rates(text):
    """The text of --lr with its rates in their shortest form: "scratch=2e-3" -> "scratch=0.002"."""
    words = text.split(",")
    read = []
    for word in words:
        strategy, is_one, rate = word.rpartition("=")
        if strategy not in STUDENTS and (is_one or len(words) > 1):
            raise UserError(f"{word}: write STRATEGY=RATE, as in scratch=2e-3,kd=2e-3")
        read.append(f"{strategy}{is_one}{cli.real(1e-9, 10)(rate)!r}")
    return ",".join(read)


def rates_of(study, strategies):
    """{strategy: its learning rate, or None for train.py's own} by --lr. A preset may have rates
    for strategies that are not asked for."""
    given = dict(word.rpartition("=")[::2] for word in (study.lr or "").split(",") if word)
    texts = {name: given.get(name) or given.get("") for name in strategies}
    return {name: float(text) if text else None for name, text in texts.items()}


def words_of_preset(name):
    """A preset as words of a command line."""
    return shlex.split(f"{ALL} {PRESETS[name]}")


def completed(asked, preset):
    """The compare.Settings that were asked for, with all that follows: from the teacher, from the
    preset (which are compare.Settings, too), and from the rest."""
    defaults = dict(vars(preset))
    if asked.teacher:  # another one than the preset's, of which its second teacher was made
        defaults["head_teacher"] = None
    study = with_defaults(with_defaults(asked, told_by_teacher(asked.teacher)), defaults)
    study = with_defaults(study, {
        "glue_grid": "stories-short" if study.glue_data == "stories" else "quick",
        "jobs": 1 if torch.cuda.is_available() else cores(),
        "out": Path("runs/collected" if study.collect else f"runs/compare-{study.preset}")})
    check(study)
    seeds = tuple(range(study.first_seed, study.first_seed + study.seeds))
    return replace(study, seed_numbers=seeds, rates=rates_of(study, study.strategies))


def told_by_teacher(name):
    """What the training of a teacher that exists has cost. Of one that is no run nothing is
    charged."""
    if name is None:
        return {}
    record = disk.optional_json(Path(name) / "run.json")
    before = record.get("flops_before") or 0  # of the run that it began with (--start-from)
    return {"teacher_flops": record.get("flops_spent", 0) + before}


def check(study):
    """Raises UserError where the teacher cannot be meant, or where options of another program are
    not those that the students may have."""
    if study.head_teacher and not study.teacher:
        raise UserError("--head-teacher is for a --teacher that has no head: give that one, too")
    for word in options_in(study.train_options, "--train-options"):
        if word in OF_A_STUDENT:
            raise UserError(f"--train-options {word}: each student has its own, by an option of "
                            "compare.py (--help)")
    for flag, text, own in (("--distil-options", study.distil_options, ONLY_DISTILLED),
                            ("--glue-options", study.glue_options, MORE_OF_GLUE)):
        for word in options_in(text, flag):
            if word not in own:
                raise UserError(f"{flag} {word} is none of {', '.join(own)}")
    # This raises what is wrong with their values.
    glue.read_settings(["student", *words_of(study.glue_options, "--glue-options")])


def options_in(text, flag):
    """The options that a text of options has, without their values: "--dtype" of "--dtype=fp32"."""
    return [word.split("=")[0] for word in words_of(text, flag) if word.startswith("--")]


# --------------------------------------------------------------------------------------------------
# Settings as texts


def texts(study):
    """{name: text} of the FIXED settings, as compare.json and students.zip have them."""
    return {name: str(getattr(study, name)) for name in FIXED}


def read_texts(path, kind):
    """{name: value} of the FIXED settings, from a compare.json. kind: compare.Settings, whose
    options say how a text is read. Raises UserError where one is missing, or is none."""
    kept, values = disk.read_json(path), {}
    for name in FIXED:
        text, read = kept.get(name), kind.__dataclass_fields__[name].metadata["type"]
        if not isinstance(text, str):
            raise UserError(f"{path} does not say {name}: it is no comparison of this version; "
                            "choose another folder")
        values[name] = None if text == "None" else read(text)
    return values
