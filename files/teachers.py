"""The models that a student learns from: its teacher, and the one whose weights it begins with.

Before anything is trained they are checked: their files, their position table, their tokenizer,
which is the student's, and the parts that the strategy reads or copies."""
import warnings
from pathlib import Path
from typing import NamedTuple, Optional

from files import checkpoints, disk, wordpiece
from program.cli import UserError, say_once


class Teacher(NamedTuple):
    """A model, a teacher or a start, and where it comes from."""
    model: object  # a model.Bert
    folder: Path
    sha256: str  # of its weights (checkpoints.weights_sha256)
    unfit_head: Optional[str] = None  # why it was opened without its MLM head, if it was


def load_models(settings, Bert):
    """(the teacher, the model whose weights the student begins with), each a Teacher or None.
    settings: a train.Settings. Bert: the class of both, model.Bert.

    With --init teacher both are the same. Raises UserError where one of them does not open, or has
    another size than --model asks for."""
    T, teacher = settings.seq_len, None
    if settings.teacher:
        teacher = load_teacher(settings.teacher, T, Bert)
    if settings.start_from is None:
        return teacher, teacher if settings.init == "teacher" else None
    start = load_teacher(settings.start_from, T, Bert, "--start-from")
    theirs = start.model.config.size
    if settings.model not in (None, theirs):
        raise UserError(f"--start-from {settings.start_from} is a BERT {theirs}, and --model asks "
                        f"for {settings.model}: leave --model out")
    return teacher, start


def load_teacher(name, seq_len, Bert, option="--teacher"):
    """The Teacher in a run's folder, in a BERT's folder, or at a hub id. option: what asks for it.
    Raises UserError where there is none, or where its position table is shorter than seq_len."""
    folder = fetch_model(name, f"{option} ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may lack an MLM head: not every strategy reads it
        try:
            model, unfit_head = Bert.from_pretrained(folder), None
        except checkpoints.UnfitHead as failure:  # `check_head_fits` raises it where it is read
            model, unfit_head = Bert.from_pretrained(folder, mlm_head=False), str(failure)
    longest = model.config.max_position_embeddings
    if longest < seq_len:
        raise UserError(f"{option} {name} knows {longest} positions, and --seq-len is {seq_len}: "
                        "lower --seq-len")
    return Teacher(model, folder, checkpoints.weights_sha256(folder), unfit_head)


def flops_of(folder):
    """The FLOPs that the weights in a folder have cost: those of its run, and of the runs before
    it. None where no run.json says so, as for a BERT of others."""
    record = disk.optional_json(folder / "run.json")
    parts = record.get("flops_spent"), record.get("flops_before", 0)
    return sum(parts) if all(isinstance(part, int) for part in parts) else None


def inherited(start, longest=None):
    """The entries of its BertConfig that a student has from the model whose weights it begins with.
    longest: the most rows of the position table that it takes (None: all)."""
    theirs = start.model.config
    positions = theirs.max_position_embeddings
    return {"max_position_embeddings": min(longest or positions, positions),
            "type_vocab_size": theirs.type_vocab_size, "layer_norm_eps": theirs.layer_norm_eps}


def fetch_model(name, option="--teacher "):
    """The folder of a teacher: a run's, a BERT's, or that into which a hub id is downloaded. Raises
    UserError, with `option` before the name, where there is none, or its run is not finished."""
    folder = disk.fetch(name, disk.MODEL_FILES)
    if (folder / "run.json").exists() and not (folder / "model.safetensors").exists():
        raise UserError(f"{option}{name} is a run that is not finished: give its own command "
                        "again, and it continues")
    return folder


# Embeddings are padded to a multiple of 1,024 at most. More rows belong to another tokenizer.
MOST_PADDING = 1023


def shared_tokenizer(teacher, start, name=None):
    """The student's tokenizer: that of its teacher, and of the model whose weights it begins with,
    each a Teacher or None. Without both it is `name`, as open_corpus takes it. Raises UserError
    where one of them has other words than `name`, or than the other one."""
    models = {"--teacher": teacher, "--start-from": None if start is teacher else start}
    tokenizers = {option: tokenizer_of(one.folder, one.model.config.vocab_size, name, option)
                  for option, one in models.items() if one}
    if len(tokenizers) == 2:
        words = [tokenizer.get_vocab() for tokenizer in tokenizers.values()]
        sizes = [one.model.config.vocab_size for one in models.values()]
        if words[0] != words[1] or sizes[0] != sizes[1]:
            raise UserError("--teacher and --start-from have different vocabularies, of "
                            f"{sizes[0]:,} and {sizes[1]:,} word embeddings: choose another model")
    return next(iter(tokenizers.values()), name)


def tokenizer_of(folder, V, name=None, option="--teacher"):
    """The student's tokenizer: that of the model in `folder`, which has V word embeddings, or the
    one called `name` if it has the same words. option: what asks for that model.

    The last rows of the embeddings may be padding, which belongs to no word. Raises UserError where
    the words differ, or where V is too few for them, or so many that there must be others."""
    has_own = wordpiece.tokenizer_file(folder) is not None
    if name is None and not has_own:
        raise UserError(f"{option} {folder} has no tokenizer.json and no vocab.txt: say with "
                        "--tokenizer which tokenizer it was trained with")
    tokenizer = wordpiece.load_tokenizer(name or str(folder))
    if name is not None and has_own:
        own = wordpiece.load_tokenizer(str(folder))
        if tokenizer.get_vocab() != own.get_vocab():
            raise UserError(f"--tokenizer {name} has other words than {option}'s: leave it out")
    words = wordpiece.vocabulary_of(tokenizer).size
    if not words <= V <= words + MOST_PADDING:
        raise UserError(f"the tokenizer has {words:,} words, and {option} {folder} has {V:,} word "
                        "embeddings: it was trained with another tokenizer")
    if V > words:
        say_once(f"{option} {folder}: {V - words:,} of its {V:,} word embeddings are padding")
    return tokenizer


def check_head_fits(model, is_read):
    """Raises UserError where the MLM head of a Teacher, or of None, is read and does not fit it."""
    if model and model.unfit_head and is_read:
        raise UserError(f"{model.unfit_head}: choose another model, or tinybert or minilm")


def check_pair(lesson, student, teacher, has_head, copies):
    """Raises UserError where the teacher lacks what the lesson reads or --init teacher copies.
    student, teacher: the Sizes of the two. has_head: whether the teacher has an MLM head. copies:
    whether the student begins with layers of the teacher (--init teacher)."""
    if lesson.teacher and lesson.teacher.logits and not has_head:
        raise UserError("this strategy reads predictions, and the teacher has no masked-language-"
                        "model head: give a BertForMaskedLM, or choose tinybert or minilm")
    if copies and (student[1:] != teacher[1:] or student.L > teacher.L):
        fitting = teacher._replace(L=min(student.L, teacher.L))
        raise UserError(f"--init teacher copies layers, and the student, a BERT {student}, has "
                        f"others than the teacher, a BERT {teacher}, or more: give --model "
                        f"{fitting}, or --init random")
