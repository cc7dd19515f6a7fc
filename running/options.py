"""What the options of train.py and glue.py mean together: the defaults that follow from other
options, and contradictions, which are UserErrors before anything runs. The functions here take a
program's Settings, and return complete ones.
"""
import os
import shlex
from dataclasses import replace
from pathlib import Path

from files import disk
from program.cli import UserError, say_once

COPIED = "-copied"  # behind a strategy's name: the student begins with layers of its teacher


def place(text):
    """The name of a file or folder, with the home folder for `~`, or a hub id. Raises UserError
    where it is empty, as the variable in --teacher "$TEACHER" may be."""
    return str(disk.path_of(text))


def words_of(text, flag):
    """What a shell would make of an option's text."""
    try:
        return shlex.split(text)
    except ValueError as failure:
        raise UserError(f"{flag} {text}: {failure}") from None


def with_defaults(settings, defaults):
    """The settings, with the defaults, {name: value}, for those that are None."""
    missing = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    return replace(settings, **missing)


def note_stories(data):
    """Says that stories is the embedded world, where a folder of that name is here. data: of
    --data, a name or a tuple of names."""
    if data in ("stories", ("stories",)) and Path("stories").exists():
        say_once("--data stories is the embedded world; for the folder of that name that is "
                 "here write ./stories")


# The setting of Bui et al. 2024, where it differs from the defaults. Their distilled students have
# half the learning rate of those from scratch.
PAPER = {"seq_len": 128, "batch_size": 1024, "dropout": 0.1, "init_range": 0.02, "warmup": 0.06}
PAPER_LR = {"scratch": 1e-3, "distilled": 5e-4}


def training(settings):
    """The train.Settings, with the defaults that follow from others."""
    if settings.paper:
        rate = PAPER_LR["scratch" if settings.strategy == "scratch" else "distilled"]
        settings = with_defaults(settings, {**PAPER, "lr": rate})
    # Short blocks and small batches decide whether a small model leaves the unigram plateau. At
    # T = 128 it can spend a laptop's whole budget there (docs/LOG.md); larger budgets pay for more.
    is_small = settings.flops < 10 ** 15
    small_batch = 32 if settings.data == ("stories",) else 64
    settings = with_defaults(settings, {
        "dropout": 0.0, "warmup": 0.06, "seq_len": 32 if is_small else 128,
        "batch_size": small_batch if is_small else 256})
    if settings.data == ("stories",) and settings.text_column:
        raise UserError("--text-column is for files of rows, and --data is stories: leave it out")
    if settings.vocab_size and settings.tokenizer:
        raise UserError("--vocab-size is for a tokenizer that is made from the text: leave it out "
                        "beside --tokenizer")
    check_distillation(settings)
    check_start(settings)
    return settings


def check_distillation(settings):
    """Raises UserError where a strategy lacks its teacher, or scratch has what only a distilled
    student can use."""
    copies, teacher = settings.init == "teacher", settings.teacher
    if copies and teacher is None:
        raise UserError("--init teacher copies a teacher's layers: say which with --teacher")
    if settings.strategy == "scratch":
        unused = {"--teacher": teacher and not copies, "--mlm-finish": settings.mlm_finish}
        for flag, is_given in unused.items():
            if is_given:
                raise UserError(f"{flag} is for a student that is taught, and --strategy scratch "
                                "learns from the text alone: leave it out, or choose a strategy "
                                "like kd, or --init teacher")
    if teacher and settings.vocab_size:
        raise UserError("--vocab-size is for a tokenizer that is made from the text, and a student "
                        "takes its teacher's: leave it out")
    if teacher and is_same_place(settings.out, teacher):
        raise UserError(f"--out {settings.out} is the teacher's own folder: choose another")


def check_start(settings):
    """Raises UserError where --start-from stands beside an option that it contradicts."""
    if settings.start_from is None:
        return
    if settings.init == "teacher":
        raise UserError("--start-from and --init teacher both say which weights the student begins "
                        "with: leave one out")
    if settings.vocab_size:
        raise UserError("--vocab-size is for a tokenizer that is made from the text, and with "
                        "--start-from a student takes the start's: leave it out")
    if is_same_place(settings.out, settings.start_from):
        raise UserError(f"--out {settings.out} is the folder that --start-from names: choose "
                        "another")


def is_same_place(out, folder):
    """Whether --out (None: not given) is this folder, by whatever name."""
    return out is not None and os.path.realpath(out) == os.path.realpath(folder)


def scoring(settings):
    """The glue.Settings, with the defaults that follow from others."""
    if len(settings.model) != 1:
        raise UserError(f"one model at a time, not {len(settings.model)}" if settings.model else
                        "say which model to score: python glue.py runs/student")
    is_embedded = settings.data == "stories"
    return with_defaults(settings, {"grid": "stories" if is_embedded else "quick",
                                    "pool": "mean" if is_embedded else "cls"})
