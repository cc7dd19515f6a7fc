"""What a comparison needs is there, and fits together: checked before anything is trained.

An hour later the same mistake would be found by a cell, and each of the others would have it, too.
"""
from files import wordpiece
from files.checkpoints import read_config
from files.teachers import fetch_model
from plumbing import cli, text
from plumbing.cli import UserError
from program.options import COPIED

import budget
import distill
import train
from model import BertConfig
from reporting import cells
from reporting.words import spell

SMALLEST_V = 201  # the vocabulary of stories; a larger one makes a step dearer


def check_pairs(args, grid):
    """Raises UserError where a strategy does not fit the pair of models or its own options, where a
    budget is below one step, or where the rates are given twice."""
    if args.lr and args.lr_grid and not cells.is_begun(args.out):
        raise UserError("--lr gives the learning rates and --lr-grid tries some: leave one out")
    for cell in grid[:len(args.strategies)]:  # every strategy, at the smallest budget
        training = train.read_settings(cell.commands[0][1:])
        chosen = distill.Options(training.temperature, training.relation_heads,
                                 training.teacher_layer)
        lesson = distill.lesson(cell.strategy.removesuffix(COPIED), args.model,
                                args.teacher_model, chosen)
        step = budget.step_flops(args.model, SMALLEST_V, training.seq_len, training.batch_size,
                                 lesson, args.teacher_model)
        if cell.flops < step:
            raise UserError(f"--budgets {spell(cell.flops)} is below one step of {cell.strategy}, "
                            f"which costs {cli.flops(step)} at least: raise it")


def check_inputs(args, grid):
    """Raises UserError where the text or a teacher is not there, or a teacher is not what the grid
    takes it for. What lies on the hub is downloaded."""
    training = train.read_settings(grid[0].commands[0][1:])
    is_trained = all((cell.folder / "model.safetensors").exists() for cell in grid)
    if args.data != "stories" and not is_trained:
        text.open_source(training.data, training.text_column)
    # A comparison that was begun had its teacher, whatever was said of its size.
    size = None if cells.is_begun(args.out) else args.teacher_model
    folders = [teacher_folder(option, name, size)
               for option, name in (("--teacher", args.teacher),
                                    ("--head-teacher", args.head_teacher)) if name]
    words = [wordpiece.load_tokenizer(str(folder)).get_vocab() for folder in folders]
    if words and words[0] != words[-1]:
        raise UserError(f"--teacher {args.teacher} and --head-teacher {args.head_teacher} have "
                        "different words, and their students could not be compared: choose two "
                        "with one tokenizer")


def teacher_folder(option, name, size):
    """The folder of a teacher that should have this size, or any (None). option: what names it."""
    folder = fetch_model(name, f"{option} ")
    own = read_config(folder, BertConfig).size
    if size not in (None, own):
        raise UserError(f"{option} {name} is a BERT {own}, and the comparison takes it for one of "
                        f"{size}: give --teacher-model {own}, or another {option}")
    return folder
