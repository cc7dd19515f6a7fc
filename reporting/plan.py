"""What a comparison would do and cost, and whether all that it needs is there, before anything is
trained. An hour later the same mistake would be found by a cell, and by each of the others, too.

    plan.describe(study, students)    # lines: what `compare.py --dry-run` prints

study: the comparison's settings, a compare.Settings. students: its cells.
"""
import shlex

from files import disk, text, wordpiece
from files.checkpoints import read_config
from files.teachers import fetch_model
from program import cli
from program.cli import UserError
from running.options import COPIED, words_of

import budget
import distill
import glue
import train
from model import BertConfig
from reporting.cells import tasks_of
from reporting.words import data_setting, listed, spell

SMALLEST_V = 201  # the vocabulary of stories; a larger one makes a step dearer
LAPTOP_RATE, H100_RATE = 1e11, 3e14  # FLOP/s in pretraining, of two cores together and of a GPU


def describe(study, students):
    """The comparison, its cost, and what it needs that is not here: text."""
    grid = glue.GRIDS[study.glue_grid]
    times = len(grid["lr"]) * len(grid["batch_size"]) * study.glue_seeds
    total = sum(cell.flops for cell in students)
    teacher = f"{study.teacher}, whose own training is not counted here"
    if study.head_teacher:
        teacher += f"; for strategies that read predictions {study.head_teacher}"
    if not study.teacher:
        total += study.teacher_flops
        teacher = f"which is trained first, with {cli.flops(study.teacher_flops)} FLOPs of the cost"
    return "\n".join([
        f"{cli.counted(len(students), 'student')}: {', '.join(study.strategies)} x "
        f"{cli.counted(len(study.budgets), 'budget')} x "
        f"{cli.counted(len(study.unique_tokens), 'data setting')} x "
        f"{cli.counted(len(study.seed_numbers), 'seed')}",
        f"grid        {listed([spell(C) for C in study.budgets])} FLOPs; "
        f"{listed([data_setting(tokens) for tokens in study.unique_tokens])}",
        f"student     BERT {study.model}, trained on {study.data}, then fine-tuned on "
        f"{study.tasks}, {cli.counted(times, 'time')} each",
        f"teacher     BERT {study.teacher_model}, {teacher}",
        f"cost        {cli.flops(total)} FLOPs of pretraining: "
        f"{cli.duration(total / LAPTOP_RATE)} on two laptop cores at {cli.flops(LAPTOP_RATE)} "
        f"FLOP/s, {cli.duration(total / H100_RATE)} on an H100 at {cli.flops(H100_RATE)}",
        "            fine-tuning, validation and starts come on top, and are not counted: the "
        "presets demo and stories take twice as long and more", *missing(study)])


def missing(study):
    """A line on the teachers, the text and the tasks that are no file and no folder here, or none.
    Their names may be on the hub: no network is asked."""
    names = [(study.teacher, "teacher"), (study.head_teacher, "teacher with a head"),
             *((name, "text") for name in words_of(study.data, "--data")),
             (study.glue_data, "tasks")]
    absent = [f"{name} ({what})" for name, what in names
              if name not in (None, "stories") and not disk.path_of(name).exists()]
    return [f"not here    {', '.join(absent)}: a name on the hub, like owner/name, is downloaded "
            "when the study begins"] if absent else []


def lines_of_shell(cells):
    """The cells as lines of shell, each with its price."""
    lines = []
    for cell in filter(None, cells):
        line = " && ".join("python " + shlex.join(command) for command in cell.commands)
        lines.append(f"{line}  # {cli.flops(cell.flops)} FLOPs, about "
                     f"{cli.duration(cell.flops / LAPTOP_RATE)} of pretraining on two cores")
    return "\n".join(lines)


def check_pairs(study, students):
    """Raises UserError where a strategy does not fit the pair of models or its own options, or
    where a budget is below one step."""
    for cell in students[:len(study.strategies)]:  # every strategy, at the smallest budget
        asked = train.read_settings(cell.commands[0][1:])
        chosen = distill.Options(asked.temperature, asked.relation_heads, asked.teacher_layer)
        lesson = distill.lesson(cell.strategy.removesuffix(COPIED), study.model,
                                study.teacher_model, chosen)
        step = budget.step_flops(study.model, SMALLEST_V, asked.seq_len, asked.batch_size, lesson,
                                 study.teacher_model)
        if cell.flops < step:
            raise UserError(f"--budgets {spell(cell.flops)} is below one step of {cell.strategy}, "
                            f"which costs {cli.flops(step)} at least: raise it")


def check_inputs(study, students):
    """Raises UserError where --out cannot be written, where tasks, text or a teacher are not there,
    or a teacher is not what it is taken for. What lies on the hub is downloaded."""
    disk.check_writable(study.out)
    tasks_of(study.glue_data, study.tasks)
    if study.data != "stories":
        asked = train.read_settings(students[0].commands[0][1:])
        text.open_source(asked.data, asked.text_column)
    words = []
    for option, name in (("--teacher", study.teacher), ("--head-teacher", study.head_teacher)):
        if name:
            folder = fetch_model(name, f"{option} ")
            size = read_config(folder, BertConfig).size
            if size != study.teacher_model:
                raise UserError(f"{option} {name} is a BERT {size}, and the comparison takes it "
                                f"for one of {study.teacher_model}: give --teacher-model {size}, "
                                f"or another {option}")
            words.append(wordpiece.load_tokenizer(str(folder)).get_vocab())
    if words and words[0] != words[-1]:
        raise UserError(f"--teacher {study.teacher} and --head-teacher {study.head_teacher} have "
                        "different words, and their students could not be compared: choose two "
                        "with one tokenizer")
