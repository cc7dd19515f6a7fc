"""What a teacher must be before it teaches: its files are whole, its position table is long enough,
its tokenizer is the student's, and it has the parts that the strategy reads."""
import warnings
from pathlib import Path
from typing import NamedTuple

from plumbing import disk, weights, wordpiece
from plumbing.cli import UserError, say_once

from model import Bert


class Teacher(NamedTuple):
    """A teacher and where it comes from."""
    model: Bert
    folder: Path
    sha256: str  # of its weights (weights.sha256)


def load_teacher(name, seq_len):
    """The Teacher in a run's folder, in a BERT's folder, or at a hub id.

    Raises UserError where there is none, or where its position table is shorter than seq_len."""
    folder = fetch(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may lack an MLM head: not every strategy reads it
        model = Bert.from_pretrained(folder)
    longest = model.config.max_position_embeddings
    if longest < seq_len:
        raise UserError(f"--teacher {name} knows {longest} positions, and --seq-len is {seq_len}: "
                        "lower --seq-len")
    return Teacher(model, folder, weights.sha256(folder))


def fetch(name, option="--teacher "):
    """The folder of a teacher: a run's folder, a BERT's folder, or what a hub id names, downloaded.
    Raises UserError where there is none, or where it is a run that is not finished. option: what
    the error line puts before the name."""
    folder = disk.fetch(name, disk.MODEL_FILES)
    if (folder / "run.json").exists() and not (folder / "model.safetensors").exists():
        raise UserError(f"{option}{name} is a run that is not finished: give its own command "
                        "again, and it continues")
    return folder


# Embeddings are padded to a multiple of 8 or 64, and for training on many GPUs to one of 1,024 at
# most. A table with more rows beyond its tokenizer's words belongs to another tokenizer.
MOST_PADDING = 1023


def tokenizer_of(folder, V, name=None):
    """The student's tokenizer: that of the teacher in `folder`, which has V word embeddings, or the
    one called `name` if it has the same words.

    The last rows of the embeddings may be padding, which belongs to no word. Raises UserError where
    the two tokenizers' words differ, where the teacher has no tokenizer and no name is given, or
    where the tokenizer has more words than V, or so few that it must be another one."""
    has_own = wordpiece.file_of(folder) is not None
    if name is None and not has_own:
        raise UserError(f"--teacher {folder} has no tokenizer.json and no vocab.txt: say with "
                        "--tokenizer which tokenizer it was trained with")
    tokenizer = wordpiece.load_tokenizer(name or str(folder))
    if name is not None and has_own:
        own = wordpiece.load_tokenizer(str(folder))
        if tokenizer.get_vocab() != own.get_vocab():
            raise UserError(f"--tokenizer {name} has other words than the teacher's: leave it out, "
                            "and the student takes the teacher's")
    check_padding(folder, V, wordpiece.vocabulary_of(tokenizer).size)
    return tokenizer


def check_padding(folder, V, words):
    """Raises UserError unless V word embeddings belong to a tokenizer of so many words. Says how
    many of them are padding."""
    if not words <= V <= words + MOST_PADDING:
        raise UserError(f"the tokenizer has {words:,} words, and the teacher {folder} has {V:,} "
                        "word embeddings, which is no padding: it was trained with another "
                        "tokenizer")
    if V > words:
        say_once(f"{folder}: {V - words:,} of its {V:,} word embeddings are padding beyond the "
                 "tokenizer's words; the student has them, too")


def check_pair(lesson, student, teacher, has_head, copies):
    """Raises UserError where the teacher lacks what the lesson reads or --init teacher copies.

    student, teacher: the Sizes of the two. has_head: whether the teacher has an MLM head. copies:
    whether the student begins with layers of the teacher (--init teacher)."""
    if lesson.teacher and lesson.teacher.logits and not has_head:
        raise UserError("this strategy reads the teacher's predictions, and the teacher has no "
                        "masked-language-model head: give one that was saved with it (a "
                        "BertForMaskedLM), or choose tinybert or minilm, which read none")
    if not copies:
        return
    names = ("the hidden size", "the number of heads", "the feed-forward size")
    for name, own, theirs in zip(names, student[1:], teacher[1:]):
        if own != theirs:
            fitting = teacher._replace(L=student.L)
            raise UserError(f"--init teacher copies layers, and {name} is {own:,} in the student "
                            f"and {theirs:,} in the teacher: give --model {fitting}, or --init "
                            "random")
    if student.L > teacher.L:
        raise UserError(f"--init teacher: the student has {student.L} layers, and the teacher "
                        f"{teacher.L} to copy")
