"""Pretrain a BERT within a budget of FLOPs. The one loop.

    python train.py --strategy scratch --flops 1e13
    python train.py --strategy kd --teacher runs/teacher --flops 1e13 --model 2x128

From top to bottom: what learns, the teacher, the loop, and `main`, which sets everything up. A
killed run continues when the same command is given again, and ends with the same weights, bit for
bit: the batch, the masks and the dropout of a step are functions of (seed, step) alone, and a
checkpoint holds all the rest.
"""
import math
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -P leaves it out
import plumbing.before_torch  # noqa: F401 (answers --help before torch is loaded)
from plumbing import cli, options, runs
from plumbing import teacher as teachers
from plumbing.monitor import Monitor
from plumbing.parallel import forward_backward, values_in_mean
from plumbing.session import Session

import torch
from torch import nn

import budget
import data
import distill
from measure import baselines
from model import Bert, BertConfig
from reporting import card

PLAIN = distill.scratch(None, None, None)  # masked language modelling, also in --mlm-finish

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


# ---- The teacher's layers ------------------------------------------------------------------------

def copied_layers(L_S, L_T):
    """The teacher layers, numbered from 1, that a student of L_S layers begins with: evenly spread
    from the first to the last. For 12 -> 6 they are those of DistilBERT's script (1, 3, 5, 8, 10,
    12)."""
    return [1 + round(m * (L_T - 1) / max(1, L_S - 1)) for m in range(L_S)]


@torch.no_grad()
def copy_teacher(student, teacher):
    """--init teacher, --start-from: copies embeddings, layers, and the MLM head where both models
    have one. With as many layers as the teacher the student is its copy."""
    copies = copied_layers(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    weights = teacher.state_dict()
    for name, own in student.state_dict().items():
        if name.startswith("layers."):
            _, m, rest = name.split(".", 2)
            name = f"layers.{copies[int(m)] - 1}.{rest}"
        if name in weights:
            theirs = weights[name]
            if name == "embeddings.position_embeddings.weight":  # the student's may be shorter
                theirs = theirs[:len(own)]
            own.copy_(theirs)


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


def set_learning_rate(optimizer, step, plan, args):
    """The rate of a step. The MLM finish is a phase with a warmup and a decay of its own."""
    begin = plan.finish_from
    if step < begin:
        rate = learning_rate(step, begin, args.lr, args.warmup)
    else:
        rate = learning_rate(step - begin, plan.finish_steps, args.lr, args.warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate


def train(run, learner, corpus, plan, args, session, validation):
    """Trains from the newest checkpoint of `run`, or from the beginning, to the plan's last step.
    Returns the seconds that it took, those before an interruption included."""
    B, device, rank = args.batch_size, session.device, session.processes.rank
    optimizer = adamw(learner, args.betas, args.weight_decay)
    with Monitor(run, learner, optimizer, plan, args, session, validation) as monitor:
        step = monitor.step
        while step < plan.steps:
            if args.dropout:
                torch.manual_seed(dropout_seed(args.seed, step, rank))
            batch = masked_batch(corpus, args.seed, step, B, device)
            # Both models' forward passes; the terms' sum is the loss; gradients of the whole batch
            terms = forward_backward(learner, batch, learner.lesson_at(step), session)
            set_learning_rate(optimizer, step, plan, args)
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
    V: int  # word embeddings: the tokenizer's words, or as many as the teacher has


def lesson_of(args, V, teacher_size):
    """(size, lesson) of the student that the command line asks for."""
    size = args.model or budget.choose(args.flops, V, args.seq_len)
    chosen = distill.Options(args.temperature, args.relation_heads, args.teacher_layer)
    return size, distill.lesson(args.strategy, size, teacher_size, chosen)


def open_corpus(args, teacher, start, session):
    """The corpus, tokenized. What is wrong with the teacher is said before hours of tokenizing."""
    tokenizer = teachers.shared_tokenizer(teacher, start, args.tokenizer)
    if teacher or start:
        config = (teacher or start).model.config
        size, lesson = lesson_of(args, config.vocab_size, teacher and config.size)
        teachers.check_head(teacher, lesson.teacher and lesson.teacher.logits)
        teachers.check_head(start, trains_head(args, lesson))
    if teacher:
        teachers.check_pair(lesson, size, config.size, teacher.model.mlm_head is not None,
                            copies=args.init == "teacher")
    corpus = data.open_corpus(args.data, args.seq_len, args.seed, tokenizer, args.vocab_size,
                              args.unique_tokens, args.text_column, session.story_makers)
    corpus.check(args.batch_size)
    return corpus


def trains_head(args, lesson):
    """Whether a loss of the run, its own or that of the MLM finish, trains an MLM head."""
    return lesson.student.logits or args.mlm_finish > 0


def plan_student(args, corpus, teacher, start):
    """The StudentPlan that the command line asks for, on this corpus."""
    other = teacher or start  # whose words the student shares
    V = other.model.config.vocab_size if other else corpus.vocabulary.size
    T, B, teacher_size = args.seq_len, args.batch_size, teacher and teacher.model.config.size
    size, lesson = lesson_of(args, V, teacher_size)
    plan = budget.plan(args.flops, budget.step_flops(size, V, T, B, lesson, teacher_size), B, T,
                       corpus.unique, args.mlm_finish, budget.step_flops(size, V, T, B))
    return StudentPlan(size, lesson, plan, V)


def build_model(args, student, corpus, start):
    """The student's BERT with its first weights, which depend on the seed alone, or are those of
    the model `start` (--init teacher, --start-from). It has an MLM head only where a loss trains
    one."""
    longest = max(128, args.seq_len)  # the position table has room for fine-tuning at 128
    fields = {"vocab_size": student.V, "max_position_embeddings": longest,
              "pad_token_id": corpus.vocabulary.pad, "hidden_dropout_prob": args.dropout,
              "attention_probs_dropout_prob": args.dropout}
    if args.init_range is not None:
        fields["initializer_range"] = args.init_range
    if start:  # whose layers it will have
        fields |= teachers.inherited(start, None if args.start_from else longest)
    model = Bert(BertConfig.of(student.size, **fields), trains_head(args, student.lesson))
    torch.manual_seed(args.seed)
    # Drawn once more, from the seed: the same weights whatever the strategy and the device.
    model.initialise(model)
    if start:
        copy_teacher(model, start.model)
    return model


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
    args = options.train()
    options.note_stories(args.data)
    runs.check_out(args.out)
    with Session(args.device, args.dtype) as session:  # processes, device, precision
        teacher, start = teachers.load(args)  # start: whose weights the student begins with
        corpus = session.keep(open_corpus(args, teacher, start, session))  # closed at the end
        session.join(args.batch_size)                         # the other processes are here
        student = plan_student(args, corpus, teacher, start)
        folder = Path(args.out or card.default_folder(args, student.size, teacher, start))
        args.lr = args.lr or default_rate(student.size)
        model = build_model(args, student, corpus, start)
        learner = Learner(model, student.lesson, teacher and teacher.model.to(session.device),
                          session.dtype, student.plan.finish_from)
        learner.to(session.device).train()
        settings = runs.settings_of(args, student, corpus, teacher, start, model.config, session)
        with session.open_run(folder, settings, args.dry_run) as run:
            if run.finished:
                if session.processes.first:
                    card.print_finished_before(run)
                return
            validation = validation_of(corpus, session.device)
            batch = masked_batch(corpus, args.seed, 0, args.batch_size, session.device)
            # How many blocks at once, how fast this machine is, and whether compiling pays.
            session.prepare(args, run.record, learner, batch, student, teacher)
            cli.say(card.plan_text(args, student, model, corpus, teacher, start, session,
                                   validation, folder))
            if args.dry_run:
                return
            session.compile(learner, batch)
            card.note_beginning(run, args, student, teacher, start, session)
            seconds = train(run, learner, corpus, student.plan, args, session, validation)
            if session.processes.first:
                card.finish(run, model, corpus, student, teacher, validation, seconds)
                card.print_result(run.record, folder)


if __name__ == "__main__":
    cli.program(main)
