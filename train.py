"""Pretrain a BERT within a budget of FLOPs. The one loop.

    python train.py --strategy scratch --flops 1e13
    python train.py --strategy kd --teacher runs/teacher --flops 1e13 --model 2x128
    python train.py --flops 1e14 --data my-books/             .txt .jsonl .csv .parquet, or a hub id

From top to bottom: the settings, what learns, the loop, and `main`, which sets everything up. A
killed run continues when the same command is given again, and ends with the same weights, bit for
bit: the batch, the masks and the dropout of a step are functions of (seed, step) alone, and a
checkpoint holds all the rest.
"""
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Optional

from files import teachers
from program import cli
from program.cli import number, real, whole
from program.settings import option, parsed
from running import options, runfolder
from running.machine import Session, forward_backward, values_in_mean
from running.monitor import Monitor
from running.options import place
from running.pairs import copy_teacher

import torch
from torch import nn

import budget
import data
import distill
from measure import baselines
from model import Bert, BertConfig
from reporting import card

PLAIN = distill.scratch(None, None, None)  # masked language modelling, also in --mlm-finish

# ---- Settings ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Settings:
    """What a run is asked for: the options of the command line. None stands for what its help calls
    the default, which `options.training` or `plan_student` puts in its place."""
    # What is trained
    strategy: str = option("scratch", "how the student learns", choices=list(distill.STRATEGIES))
    teacher: str = option(None, "a run's folder, a BERT's folder or a hub id", place, "NAME")
    flops: int = option(None, "the budget, like 1e13 or 2.5e15", number, "C", required=True)
    model: budget.Size = option(None, "2x128, 4x312h12f1200 (default: by the budget)", budget.size,
                                "LxH")
    # What is read
    data: tuple = option(("stories",), "stories (default), files, folders, or a hub id, like "
                         "wikimedia/wikipedia:20231101.en", metavar="TEXT", nargs="+")
    text_column: str = option(None, "that holds the text (default: text)", metavar="NAME")
    tokenizer: str = option(None, "a file, a folder or a hub id (default: the teacher's, or one "
                            "made from the text)", place, "NAME")
    vocab_size: int = option(None, "of one made from the text (default: 8192)", whole(6, 10 ** 6),
                             "V")
    unique_tokens: int = option(None, "distinct tokens, repeated (default: all)", number, "N")
    seq_len: int = option(None, "tokens in a block (default: 32, from 1e15 FLOPs on 128)",
                          whole(4, 2 ** 16), "T")
    batch_size: int = option(None, "blocks in a step (default: stories 32, text 64, from 1e15 "
                             "FLOPs on 256)", whole(1, 2 ** 24), "B")
    # How the weights begin, and how they are trained
    lr: float = option(None, "peak rate (default: 2e-3 sqrt(128 / h))", real(1e-9, 10), "R")
    betas: tuple = option((0.9, 0.98), "default: 0.9 0.98", real(0, 1 - 1e-9), "b", nargs=2)
    weight_decay: float = option(0.01, "of matrices (default: %(default)s)", real(0, 10), "w")
    warmup: float = option(None, "share of the steps (default: 0.06)", real(0, 1), "w")
    dropout: float = option(None, "default: 0", real(0, 0.9), "p")
    start_from: str = option(None, "a run or a BERT whose weights are the first", place, "NAME")
    init_range: float = option(None, "of the first weights (default: 0.02 sqrt(768 / h))",
                               real(1e-9, 10), "s")
    paper: bool = option(False, "the paper's --seq-len, --batch-size, --dropout, --init-range, "
                         "--warmup and --lr where none are given (docs/released.md)")
    seed: int = option(0, "of weights, order, masks, stories", whole(0, 2 ** 31 - 1), "n")
    # What only some strategies use
    init: str = option("random", "teacher: begin with every n-th of its layers",
                       choices=["random", "teacher"])
    mlm_finish: float = option(0.0, "last share of the budget, for plain MLM", real(0, 0.9), "s")
    temperature: float = option(1.0, "kd's (default: %(default)s)", real(0.01, 1000), "t")
    relation_heads: int = option(None, "minilm's (default: 16 wide in the teacher)",
                                 whole(1, 10 ** 4), "R")
    teacher_layer: int = option(None, "for minilm (default: the last; above 12 layers 7/8 of the "
                                "way up)", whole(1, 1000), "l")
    # Where it computes, and where it writes
    dtype: str = option("auto", "auto: bf16 where it is fast", choices=["auto", "fp32", "bf16"])
    device: str = option("auto", "auto (default), cpu, cuda, cuda:1, mps", metavar="D")
    micro_batch: int = option(None, "blocks at once (default: what fits)", whole(1, 2 ** 24), "n")
    compile: str = option("auto", "auto: on a GPU, for more than ten minutes",
                          choices=["auto", "on", "off"])
    out: str = option(None, "default: runs/ and a name of the settings", place, "FOLDER")
    dry_run: bool = option(False, "print the plan and stop")


def read_settings(words=None):
    """The Settings that a command line asks for. words: without the program's name (None: those of
    the running program). Raises UserError where they are wrong or contradict each other."""
    settings = options.training(parsed(Settings, __doc__, words))
    if settings.teacher is None:
        distill.lesson(settings.strategy, None, None)  # raises where the strategy needs one
    return settings

# ---- What learns ---------------------------------------------------------------------------------

class Learner(nn.Module):
    """A student with its lesson and its teacher. Its parameters are what is trained: `model.*`, the
    student, and `projection.*`, the matrix between the widths where the lesson needs one."""

    def __init__(self, student, lesson, teacher=None, dtype="fp32", finish_from=math.inf):
        super().__init__()
        self.model, self.lesson, self.finish_from = student, lesson, finish_from
        self.projection = nn.Identity()
        if lesson.width:
            h, h_T = student.config.hidden_size, lesson.width
            self.projection = nn.Linear(h, h_T, bias=False)
            nn.init.normal_(self.projection.weight, 0.0, h ** -0.5)  # keeps the variance
        if lesson.teacher is None:
            teacher = None  # scratch --init teacher: it gave its layers, and is never asked
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            if dtype == "bf16":  # what autocast would do to the products at each step
                for module in teacher.modules():
                    if isinstance(module, nn.Linear):
                        module.to(torch.bfloat16)
        # torch does not look into a tuple: the teacher is neither trained, nor saved, nor moved.
        self.frozen = (teacher,)

    def forward(self, blocks, inputs, positions, labels, lesson=None):
        """One step's forward pass of student and teacher -> {term: scalar}; their sum is the loss.

        blocks (B, T) are the whole text and inputs (B, T) the masked one; positions (N,) and labels
        (N,) belong to the masked words. lesson: another one than the learner's own, like PLAIN."""
        lesson, teacher = lesson or self.lesson, self.frozen[0]
        x = inputs if lesson.masked else blocks
        s = self.model(x, positions=positions, reads=lesson.student)
        t = None
        if lesson.teacher is not None:
            with torch.no_grad():
                t = teacher(x, positions=positions, reads=lesson.teacher)
        terms = lesson.terms(s, t, labels, self.projection)
        return {name: value.float() for name, value in terms.items()}

    def lesson_at(self, step):
        """The strategy's lesson, and from step `finish_from` on (--mlm-finish) plain MLM."""
        return PLAIN if step >= self.finish_from else self.lesson

    def validate(self, validation, session, lesson=None, chunk=128):
        """{term: its mean over the validation set (blocks, inputs, positions, labels)}, without
        dropout. Each process takes its share of the set, and all get the mean."""
        blocks, inputs, positions, labels = validation
        k, T = len(positions) // len(inputs), inputs.shape[1]
        mine = session.processes.rows(len(inputs))
        chunk = min(chunk, mine.stop - mine.start)
        sums = 0.0  # (2, number of terms): sum_i n_i mean_i and sum_i n_i over the chunks i
        self.eval()
        with torch.no_grad(), session.autocast():
            for i in range(mine.start, mine.stop, chunk):
                j = min(i + chunk, mine.stop)
                masked = slice(i * k, j * k)
                terms = self(blocks[i:j], inputs[i:j], positions[masked] - i * T, labels[masked],
                             lesson)
                n = [values_in_mean(name, labels[masked]).item() for name in terms]
                totals = [mean.item() * n_i for mean, n_i in zip(terms.values(), n)]
                sums = sums + torch.tensor([totals, n], dtype=torch.float64)
        self.train()
        session.processes.all_reduce_sum(sums)
        # mean over the set = sum_i n_i mean_i / sum_i n_i
        return dict(zip(terms, (sums[0] / sums[1].clamp(min=1)).tolist()))

    def compile_layers(self):
        """torch.compile, each layer for itself: one compilation serves all layers of a size."""
        for model in (self.model, *filter(None, self.frozen)):
            for layer in model.layers:
                layer.compile()


def adamw(module, betas=(0.9, 0.999), weight_decay=0.01):
    """AdamW with the paper's exceptions: biases and LayerNorm have no weight decay."""
    matrices = [p for p in module.parameters() if p.dim() >= 2]
    vectors = [p for p in module.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay},
              {"params": vectors, "weight_decay": 0.0}]
    fused = matrices[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, betas=tuple(betas), eps=1e-6, fused=fused)


def learning_rate(step, steps, peak, warmup):
    """Linear warmup over the first share `warmup` of the steps, then linear decay, to zero after
    the last one."""
    # lr = peak min((step + 1) / (w + 1), (steps - step) / (steps - w)), with w = warmup * steps
    w = warmup * steps
    up = (step + 1) / (w + 1)
    down = (steps - step) / (steps - w) if steps > w else 1.0
    return peak * min(up, down)


# ---- The loop ------------------------------------------------------------------------------------

def masked_batch(corpus, seed, step, batch_size, device):
    """The batch of a step, a function of (seed, step): blocks (B, T), inputs (B, T), positions
    (N,), labels (N,)."""
    blocks = corpus.blocks(step, batch_size)
    masked = data.mask_tokens(blocks, data.generator(seed, step), corpus.vocabulary)
    tensors = [torch.from_numpy(array) for array in (blocks, *masked)]
    if device.type == "cuda":  # the copy from pinned memory goes on while the GPU computes
        tensors = [tensor.pin_memory() for tensor in tensors]
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def dropout_seed(seed, step, rank):
    """The seed of a step's dropout in one process: 32 bits, since on a CPU torch reads no more.
    The key ends in 1 + rank: for numpy (seed, step, 0) is (seed, step), the key of the masks."""
    return int(data.generator(seed, step, 1 + rank).integers(2 ** 32))


def default_rate(size):
    """The peak learning rate of a run without --lr: narrower models take larger steps."""
    return 2e-3 * math.sqrt(128 / size.h)


def set_learning_rate(optimizer, step, setup):
    """The rate of a step. The MLM finish is a phase with a warmup and a decay of its own."""
    plan, peak, warmup = setup.student.plan, setup.student.lr, setup.settings.warmup
    begin = plan.finish_from
    if step < begin:
        rate = learning_rate(step, begin, peak, warmup)
    else:
        rate = learning_rate(step - begin, plan.finish_steps, peak, warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate


def train(run, setup, validation):
    """Trains from the newest checkpoint of `run`, or from the beginning, to the plan's last step.
    Returns the seconds that it took, those before an interruption included."""
    settings, learner, session = setup.settings, setup.learner, setup.session
    B, device, rank = settings.batch_size, session.device, session.processes.rank
    optimizer = adamw(learner, settings.betas, settings.weight_decay)
    with Monitor(run, optimizer, setup, validation) as monitor:
        step = monitor.step
        while step < setup.student.plan.steps:
            if settings.dropout:
                torch.manual_seed(dropout_seed(settings.seed, step, rank))
            batch = masked_batch(setup.corpus, settings.seed, step, B, device)
            # Both models' forward passes; the terms' sum is the loss; gradients of the whole batch
            terms = forward_backward(learner, batch, learner.lesson_at(step), session)
            set_learning_rate(optimizer, step, setup)
            monitor.check_finite(terms)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            monitor.after(step, terms)  # logs, validates, saves and stops, each when it is due
    return monitor.seconds


# ---- Setting up ----------------------------------------------------------------------------------

class StudentPlan(NamedTuple):
    """What a run trains: the student's size, what its loss reads, what the budget buys."""
    size: budget.Size
    lesson: distill.Lesson
    plan: budget.Plan
    V: int     # word embeddings: the tokenizer's words, or as many as the teacher has
    lr: float  # the peak learning rate


class Setup(NamedTuple):
    """All that a run is made of."""
    settings: Settings
    session: Session                     # processes, device, precision
    corpus: data.Corpus
    teacher: Optional[teachers.Teacher]
    start: Optional[teachers.Teacher]    # whose weights the student begins with
    student: StudentPlan
    learner: Learner

    @property
    def teacher_size(self):
        """The teacher's Size, or None."""
        return self.teacher and self.teacher.model.config.size


def lesson_of(settings, V, teacher_size):
    """(size, lesson) of the student that the settings ask for."""
    size = settings.model or budget.choose(settings.flops, V, settings.seq_len)
    chosen = distill.Options(settings.temperature, settings.relation_heads, settings.teacher_layer)
    return size, distill.lesson(settings.strategy, size, teacher_size, chosen)


def open_corpus(settings, teacher, start, session):
    """The corpus, tokenized. What is wrong with the teacher is said before hours of tokenizing."""
    tokenizer = teachers.shared_tokenizer(teacher, start, settings.tokenizer)
    if teacher or start:
        config = (teacher or start).model.config
        size, lesson = lesson_of(settings, config.vocab_size, teacher and config.size)
        teachers.check_head_fits(teacher, lesson.teacher and lesson.teacher.logits)
        teachers.check_head_fits(start, trains_head(settings, lesson))
    if teacher:
        teachers.check_pair(lesson, size, config.size, teacher.model.mlm_head is not None,
                            copies=settings.init == "teacher")
    text = data.Text(settings.data, settings.text_column, tokenizer, settings.vocab_size,
                     settings.unique_tokens)
    corpus = data.open_corpus(text, settings.seq_len, settings.seed, session.story_makers)
    corpus.check(settings.batch_size)
    return corpus


def trains_head(settings, lesson):
    """Whether a loss of the run, its own or that of the MLM finish, trains an MLM head."""
    return lesson.student.logits or settings.mlm_finish > 0


def plan_student(settings, corpus, teacher, start):
    """The StudentPlan that the settings ask for, on this corpus."""
    other = teacher or start  # whose words the student shares
    V = other.model.config.vocab_size if other else corpus.vocabulary.size
    T, B = settings.seq_len, settings.batch_size
    teacher_size = teacher and teacher.model.config.size
    size, lesson = lesson_of(settings, V, teacher_size)
    finish = settings.mlm_finish, budget.step_flops(size, V, T, B)
    plan = budget.plan(settings.flops, budget.step_flops(size, V, T, B, lesson, teacher_size), B, T,
                       corpus.unique, finish)
    return StudentPlan(size, lesson, plan, V, settings.lr or default_rate(size))


def build_model(settings, student, corpus, start):
    """The student's BERT with its first weights, of the seed, or of the model `start` (--init
    teacher, --start-from). It has an MLM head only where a loss trains one."""
    longest = max(128, settings.seq_len)  # the position table has room for fine-tuning at 128
    fields = {"vocab_size": student.V, "max_position_embeddings": longest,
              "pad_token_id": corpus.vocabulary.pad, "hidden_dropout_prob": settings.dropout,
              "attention_probs_dropout_prob": settings.dropout}
    if settings.init_range is not None:
        fields["initializer_range"] = settings.init_range
    if start:  # whose layers it will have
        fields |= teachers.inherited(start, None if settings.start_from else longest)
    model = Bert(BertConfig.of(student.size, **fields), trains_head(settings, student.lesson))
    torch.manual_seed(settings.seed)
    # Drawn once more, from the seed: the same weights whatever the strategy and the device.
    model.initialise(model)
    if start:
        copy_teacher(model, start.model)
    return model


def set_up(settings, session):
    """The Setup of a run. Raises UserError for what is wrong with its teacher or its text."""
    teacher, start = teachers.load_models(settings, Bert)
    if settings.start_from:
        settings = replace(settings, model=start.model.config.size)
    corpus = session.keep(open_corpus(settings, teacher, start, session))  # closed at the end
    session.join(settings.batch_size)                         # the other processes are here
    student = plan_student(settings, corpus, teacher, start)
    model = build_model(settings, student, corpus, start)
    learner = Learner(model, student.lesson, teacher and teacher.model.to(session.device),
                      session.dtype, student.plan.finish_from)
    learner.to(session.device).train()
    return Setup(settings, session, corpus, teacher, start, student, learner)


class Validation(NamedTuple):
    """Held-out blocks with fixed masks, and what counting words achieves on them."""
    batch: list            # blocks (n, T), inputs (n, T), positions (N,), labels (N,)
    counting_losses: dict  # "unigram_loss" and "neighbour_loss"


def validation_of(corpus, device):
    """The corpus's Validation."""
    blocks, masked = corpus.validation()
    losses = baselines.counting_losses(corpus.sample(), blocks, *masked, corpus.vocabulary.size)
    return Validation([torch.from_numpy(array).to(device) for array in (blocks, *masked)], losses)


def main():
    settings = read_settings()
    options.note_stories(settings.data)
    runfolder.check_out(settings.out)
    with Session(settings.device, settings.dtype) as session:
        setup = set_up(settings, session)
        folder = Path(settings.out or card.default_folder(setup))
        with session.open_run(folder, runfolder.identity(setup), settings.dry_run) as run:
            if run.finished:
                if session.processes.first:
                    card.print_finished_before(run)
                return
            validation = validation_of(setup.corpus, session.device)
            batch = masked_batch(setup.corpus, settings.seed, 0, settings.batch_size,
                                 session.device)
            # How many blocks at once, how fast this machine is, and whether compiling pays.
            session.prepare(setup, run.record, batch)
            cli.say(card.plan_text(setup, validation, folder))
            if settings.dry_run:
                return
            session.compile(setup.learner, batch)
            card.note_beginning(run, setup)
            seconds = train(run, setup, validation)
            if session.processes.first:
                card.finish(run, setup, validation, seconds)
                card.print_result(run.record, folder)


if __name__ == "__main__":
    cli.program(main)
