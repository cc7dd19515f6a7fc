"""What a comparison would do and cost, and whether all that it needs is there: before an hour of
training, and not after it. study: a compare.Settings. students: its cells.
"""
import shlex

from files import disk, text, wordpiece
from files.checkpoints import read_config
from files.teachers import fetch_model
from program import cli
from program.cli import UserError
from running.options import COPIED

import distill
import glue
import train
from model import BertConfig
from reporting.cells import tasks_of
from reporting.words import data_setting, listed, spell

LAPTOP_RATE, H100_RATE = 1e11, 3e14  # FLOP/s in pretraining, of two cores together and of a GPU


def describe(study, students):
    """What is made, and what it costs: text."""
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
        "presets demo and stories take twice as long and more"])


def lines_of_shell(cells):
    """The cells as lines of shell, each with its price."""
    lines = []
    for cell in filter(None, cells):
        line = " && ".join("python " + shlex.join(command) for command in cell.commands)
        lines.append(f"{line}  # {cli.flops(cell.flops)} FLOPs, about "
                     f"{cli.duration(cell.flops / LAPTOP_RATE)} of pretraining on two cores")
    return "\n".join(lines)


def check_pairs(study, students):
    """Raises UserError where a strategy does not fit the pair of models, or its own options."""
    for cell in students[:len(study.strategies)]:  # each strategy once
        asked = train.read_settings(cell.commands[0][1:])
        chosen = distill.Options(asked.temperature, asked.relation_heads, asked.teacher_layer)
        distill.lesson(cell.strategy.removesuffix(COPIED), study.model, study.teacher_model, chosen)


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
                                f"for one of {study.teacher_model}: give --teacher-model {size}")
            words.append(wordpiece.load_tokenizer(str(folder)).get_vocab())
    if words and words[0] != words[-1]:
        raise UserError(f"--teacher {study.teacher} and --head-teacher {study.head_teacher} have "
                        "different words: choose two with one tokenizer")
