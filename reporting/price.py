"""What a comparison costs: the FLOPs of each cell, and the seconds that they take.

    prices = Prices(args, tasks)
    prices.work(cell)                    # Work: FLOPs of each kind, and programs that start
    seconds(work, rate=1e11)             # at so many FLOP/s in pretraining

A budget is spent to the integer (budget.py). What stands around it is an estimate:
 1. A run validates eleven times. Each time the student and its teacher read 2^15 tokens, forward.
 2. A step of fine-tuning costs 3 F a text, and scoring costs F a text. F is the forward pass of a
    text of the task's mean length through encoder, pooler and linear layer.
 3. Fine-tuning reaches 60% of the FLOP/s of pretraining, since its batches are small.
 4. A program needs some seconds of its own to start, to measure the machine, and to write.
The numbers were measured on two cores (docs/LOG.md).
"""
import heapq
import random
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from files import disk
from program.monitor import VALIDATIONS
from program.options import COPIED, words_of

import budget
import distill
import glue
import train
from data import VALIDATION_TOKENS
from reporting.card import validation_flops

FINE_TUNING_SPEED = 0.6  # of pretraining's FLOP/s
LAPTOP_RATE, LAPTOP_CORES = 1e11, 2  # FLOP/s in pretraining, of all cores together
START = 3.5  # seconds of one core, for a program to start and to end
PIECES = 1.15  # word pieces and padding for each word of a real text
SAMPLE = 1000  # texts of a part whose lengths are looked at
STORY_WORDS = 201  # the vocabulary of stories
BERT_WORDS, OWN_WORDS = 30522, 8192  # of BERT, and of a tokenizer that train.py makes
WORD = re.compile(r"\w+|[^\w\s]")


class Work(NamedTuple):
    """What a cell computes, in FLOPs, and how many programs it starts."""
    pretraining: float = 0
    validation: float = 0
    fine_tuning: float = 0
    starts: float = 0

    def plus(self, other):
        """The sum of two."""
        return Work(*map(sum, zip(self, other)))


def seconds(work, rate):
    """How long the work takes where pretraining reaches `rate` FLOP/s."""
    flops = work.pretraining + work.validation + work.fine_tuning / FINE_TUNING_SPEED
    return flops / rate + work.starts * START


def makespan(times, jobs):
    """The seconds after which all cells are finished, where `jobs` at a time are run, in order.

    times: the seconds of each cell. At the end some of the jobs have nothing left to do, so this is
    more than the sum divided by `jobs`."""
    ends = [0.0] * jobs
    for time in times:
        heapq.heapreplace(ends, ends[0] + time)
    return max(ends)


# --------------------------------------------------------------------------------------------------
# FLOPs beside the budget


def text_flops(size, T, outputs):
    """The forward pass of one text of T tokens: encoder, pooler and a linear layer."""
    encoder = sum(cost for _, _, cost in budget.encoder_flops(size, T))
    # (1, h) @ (h, h) and (1, h) @ (h, outputs)
    return encoder + 2 * size.h ** 2 + 2 * size.h * outputs


def fine_tuning_flops(size, lengths, outputs, epochs):
    """One fine-tuning of a task, and its scoring. lengths: {"train": (texts, their mean number of
    tokens)}, and likewise of the parts that are scored."""
    total = 0
    for part, (texts, T) in lengths.items():
        passes = 3 * epochs if part == "train" else 1  # backward costs twice forward
        total += texts * passes * text_flops(size, T, outputs)
    return total


def lengths_of(task, longest, pieces=1.0):
    """{part: (texts, their mean number of tokens)} of a task's training and scored parts.

    Its words and marks are counted, and [CLS] and [SEP]. Of a large part a sample is looked at.
    longest: tokens to which texts are cut. pieces: the tokens of a word, padding included."""
    lengths = {}
    for part in ("train", *task.scored):
        examples = task.parts[part]
        # Drawn by chance: long and short texts may take turns in a file.
        sample = random.Random(0).sample(examples, min(SAMPLE, len(examples)))
        counts = [min(longest, tokens_of(example, pieces)) for example in sample]
        lengths[part] = len(examples), round(statistics.mean(counts))
    return lengths


def tokens_of(example, pieces):
    """About how many tokens an example (first text, second text or None, label) has."""
    texts = [text for text in example[:2] if text is not None]
    words = sum(len(WORD.findall(text)) for text in texts)
    return pieces * words + 1 + len(texts)  # [CLS], and [SEP] behind each text


# --------------------------------------------------------------------------------------------------
# The cells of a comparison


def fine_tunings(args):
    """How often a student is fine-tuned on a task: settings of the grid x seeds."""
    grid = glue.GRIDS[args.glue_grid]
    return len(grid["lr"]) * len(grid["batch_size"]) * args.glue_seeds


class Prices:
    """What the cells of a comparison cost. tasks: those that students are scored on, or None where
    they are not here. Then fine-tuning is not counted."""

    def __init__(self, args, tasks):
        self.args, self.tasks = args, tasks
        words = words_of(args.glue_options, "--glue-options")
        longest = glue.read_settings(["student", *words]).seq_len
        pieces = 1.0 if args.glue_data == "stories" else PIECES
        self.lengths = [(task, lengths_of(task, longest, pieces)) for task in tasks or ()]
        self.validations = {}  # {strategy: FLOPs of one validation}

    def work(self, cell):
        """The Work of a cell, by its commands."""
        work = Work(pretraining=cell.flops, starts=len(cell.commands))
        for program, *words in cell.commands:
            if program == "train.py":
                work = work.plus(Work(validation=VALIDATIONS * self.validation(cell, words)))
            elif program == "glue.py":
                work = work.plus(Work(fine_tuning=self.fine_tuning(cell)))
        return work

    def validation(self, cell, words):
        """FLOPs of one validation in a run of train.py."""
        args, is_teacher = self.args, cell.strategy == "teacher"
        if cell.strategy not in self.validations:
            training = train.read_settings(words)
            size, teacher = args.model, args.teacher_model
            if is_teacher:
                size, teacher = args.teacher_model, None
            name = "scratch" if is_teacher else cell.strategy.removesuffix(COPIED)
            T = training.seq_len
            lesson = distill.lesson(name, size, teacher)
            self.validations[cell.strategy] = validation_flops(
                size, self.vocabulary(training), T, VALIDATION_TOKENS // T, lesson, teacher)
        return self.validations[cell.strategy]

    def vocabulary(self, training):
        """How many words the models know: what their teacher's folder says, or what is usual."""
        if self.args.teacher:
            config = disk.optional_json(Path(self.args.teacher) / "config.json")
            return config.get("vocab_size", BERT_WORDS)
        if training.data == ["stories"]:
            return STORY_WORDS
        return training.vocab_size or OWN_WORDS

    def fine_tuning(self, cell):
        """FLOPs of all fine-tunings of a cell's model: tasks x settings of the grid x seeds."""
        args = self.args
        grid = glue.GRIDS[args.glue_grid]
        # A cell without a budget scores the teacher.
        size = args.model if cell.flops else args.teacher_model
        return fine_tunings(args) * sum(
            fine_tuning_flops(size, lengths, len(task.labels or (1,)), grid["epochs"])
            for task, lengths in self.lengths)

    def total(self, cells):
        """The Work of many cells."""
        total = Work()
        for cell in cells:
            total = total.plus(self.work(cell))
        return total

    def seconds_on_cores(self, phases, rate, cores):
        """The seconds of a whole comparison on a machine whose cores reach `rate` FLOP/s together.

        phases: lists of cells, of which each waits for the one before. One cell alone has all
        cores, and of many each has one."""
        total = 0.0
        for cells in phases:
            jobs = min(cores, len(cells)) or 1
            total += makespan([seconds(self.work(cell), rate / jobs) for cell in cells], jobs)
        return total
