"""What a training step costs, in floating-point operations, and what a budget of them buys.

    python budget.py --model 6x768 --flops 1e17 --vocab-size 30522 --seq-len 128 --batch-size 256
    python budget.py --model 6x768 --flops 1e17 --teacher 12x768        # every strategy's bill, side by side

Every run of this project obeys the formula below; nothing is estimated, and a step's bill is an integer.

Assumptions
 1. A matrix product (m x k)(k x n) costs 2mnk: m*n sums of k products, a multiplication and an addition each.
 2. Only matrix products count. Elementwise work (softmax, GELU, LayerNorm, biases, dropout) is free, and so is the
    embedding look-up, which multiplies nothing. At h = 768, T = 128 that leaves out about 0.4% of a block.
 3. Backward costs twice forward: of Y = XW it needs dX = dY W^T and dW = X^T dY, two products of the size of one.
 4. The MLM head (h x h transform, h x V decoder) runs at the masked positions only. Their number in a sequence is
    fixed, k = int(0.15 T + 0.5), so that all steps cost the same. At every position the head would cost 6.7 times this.
 5. The optimizer is elementwise, and validation is not training: both are free, and a run reports its validation.
 6. A strategy (distill.py) declares what its loss reads of student and teacher. Models compute just that, and the bill
    charges just that: a pass ends in the deepest layer that is read, heads that no loss reads do not run, a teacher has
    no backward pass, and the products inside a loss count like all others.

tests/test_budget.py compares a step's bill with torch.utils.flop_counter, to the integer.

Symbols (the paper's, and ELECTRA's flops_computation.py, whose form this follows)
    L layers, h hidden size, A heads, f feed-forward size, V vocabulary, T sequence length, k masked positions,
    B sequences in a batch, C the budget in FLOPs. Where student and teacher differ: L_S, L_T.
"""
import json
import re
from typing import Callable, NamedTuple, Optional

import cli
from cli import UserError


class Size(NamedTuple):
    """The four sizes of an encoder, written `LxH`, `LxHhA` or `LxHhAfF`."""
    L: int  # num_hidden_layers
    h: int  # hidden_size
    A: int  # num_attention_heads
    f: int  # intermediate_size

    def __str__(self):
        usual_A, usual_f = self.h // 64 if self.h % 64 == 0 else None, 4 * self.h
        heads = f"h{self.A}" if self.A != usual_A or self.f != usual_f else ""
        return f"{self.L}x{self.h}{heads}" + (f"f{self.f}" if self.f != usual_f else "")

    @property
    def encoder_parameters(self):
        """Weights of the encoder's matrix products, L (4h^2 + 2hf): what a token is multiplied with, embeddings aside."""
        return self.L * (4 * self.h ** 2 + 2 * self.h * self.f)


def size(text):
    """`"6x768"` -> Size(6, 768, 12, 3072). Heads are h/64 and the feed-forward 4h unless written: `4x312h12f1200`.

    Raises UserError when the text is no size, or the heads do not divide h."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,6})(?:h(\d{1,4}))?(?:f(\d{1,6}))?", text.strip(), re.ASCII)
    if not match:
        raise UserError(f"{text!r} is no model size: write layers x hidden size, like 2x128, 6x768 or 4x312h12f1200")
    L, h, A, f = (int(group) if group else None for group in match.groups())
    if A is None:
        if h % 64:
            fitting = max(heads for heads in range(1, max(1, h // 32) + 1) if h % heads == 0)
            raise UserError(f"{text}: {h} is not a multiple of 64, so say how many heads, like {L}x{h}h{fitting}")
        A = h // 64
    f = 4 * h if f is None else f
    if 0 in (L, h, A, f):
        raise UserError(f"{text}: layers, hidden size, heads and feed-forward size must be at least 1")
    if h % A:
        raise UserError(f"{text}: {A} heads do not divide the hidden size {h}")
    return Size(L, h, A, f)


def masked_positions(T):
    """k: how many of a sequence's T tokens are masked, 15% rounded half up (Devlin et al. 2018, section 3.1)."""
    return (15 * T + 50) // 100  # int(0.15 * T + 0.5) in whole numbers: 0.15 is no binary fraction


class Depth(NamedTuple):
    """How far a forward pass goes: in the first `whole` layers to the end, in the first `scores` to Q K^T, in the first `qkv`
    to the projections. They differ in the last layer only, and by one."""
    qkv: int
    scores: int
    whole: int


class Reads(NamedTuple):
    """What a loss reads of one model's forward pass. Layers are numbered from 1, and 0 is the embeddings' output."""
    logits: bool = False   # the MLM head's, at the masked positions
    hidden: tuple = ()     # layers whose output (B, T, h) is read
    scores: tuple = ()     # layers whose attention scores (B, A, T, T) are read
    qkv: tuple = ()        # layers whose queries, keys and values (B, T, h) are read
    relations: int = 0     # T x T products that the loss makes of each of those layers: Q Q^T, K K^T and V V^T are 3

    def depth(self, L):
        """How far a model of L layers must run."""
        deepest = max((L if self.logits else 0, *self.hidden, *self.scores, *self.qkv))
        whole = deepest if self.logits or deepest in self.hidden else max(0, deepest - 1)
        return Depth(deepest, deepest if deepest in self.scores else whole, whole)


MLM = Reads(logits=True)


class Lesson(NamedTuple):
    """What a step of a strategy computes: what its loss reads of the student and, where it has one, of the teacher."""
    student: Reads = MLM
    teacher: Optional[Reads] = None
    width: Optional[int] = None   # of a matrix that maps each hidden state read of the student to the teacher's width
    masked: bool = True           # whether they read the masked text, or the whole
    terms: Optional[Callable] = None  # the loss (distill.py): the bill does not need it
    options: tuple = ()           # which of distill.Options it reads


# ---------------------------------------------------------------------------------------------------------------------
# The formula. Forward pass of one sequence, one line a component: (name, formula as text, FLOPs).

def encoder_flops(size, T, reads=MLM):
    L, h, A, f = size
    n = reads.depth(L)
    q, s, w = ("L" if layers == L else str(layers) for layers in n)
    return [
        ("queries, keys, values", f"{q} * 6 T h^2", n.qkv * 6 * T * h * h),      # (T, h) @ (h, 3h)
        ("scores Q K^T",          f"{s} * 2 T^2 h", n.scores * 2 * T * T * h),   # A times (T, h/A) @ (h/A, T): A cancels
        ("weighted sum of V",     f"{w} * 2 T^2 h", n.whole * 2 * T * T * h),    # A times (T, T) @ (T, h/A)
        ("attention output",      f"{w} * 2 T h^2", n.whole * 2 * T * h * h),    # (T, h) @ (h, h)
        ("feed-forward",          f"{w} * 4 T h f", n.whole * 4 * T * h * f),    # (T, h) @ (h, f) and (T, f) @ (f, h)
    ]


def mlm_head_flops(size, V, k):
    h = size.h
    return [
        ("MLM head: transform", "2 k h^2", 2 * k * h * h),             # (k, h) @ (h, h)
        ("MLM head: decoder",   "2 k h V", 2 * k * h * V),             # (k, h) @ (h, V)
    ]


def loss_flops(size, T, reads, width=None):
    """The matrix products of a loss: relations among positions, and the projection of hidden states to another width."""
    h, m, r = size.h, len(reads.hidden), len(reads.qkv) * reads.relations
    rows = [("relations",  f"{r} * 2 T^2 h", r * 2 * T * T * h)] if r else []                     # (T, h) @ (h, T)
    return rows + ([("projection", f"{m} * 2 T h h'", m * 2 * T * h * width)] if width else [])   # (T, h) @ (h, h')


def forward_flops(size, V, T, reads=MLM, width=None):
    """The components of one sequence's forward pass, as far as it is read, with the loss: [(name, formula, FLOPs)]."""
    head = mlm_head_flops(size, V, masked_positions(T)) if reads.logits else []
    return encoder_flops(size, T, reads) + head + loss_flops(size, T, reads, width)


def bill(size, V, T, lesson=Lesson(), teacher=None):
    """FLOPs of one sequence in training, by what they are spent on. `teacher`: its Size."""
    def total(rows):
        return sum(flops for _, _, flops in rows)
    forward = total(forward_flops(size, V, T, lesson.student, lesson.width))
    loss = total(loss_flops(size, T, lesson.student, lesson.width))
    taught = total(forward_flops(teacher, V, T, lesson.teacher)) if lesson.teacher else 0
    loss_taught = total(loss_flops(teacher, T, lesson.teacher)) if lesson.teacher else 0
    return {"student_forward": forward - loss, "student_backward": 2 * (forward - loss),
            "teacher_forward": taught - loss_taught, "loss": 3 * loss + loss_taught}


def step_flops(size, V, T, B, lesson=Lesson(), teacher=None):
    """FLOPs of one optimizer step on B sequences: the student forward, and backward at twice that; the teacher forward."""
    return sum(bill(size, V, T, lesson, teacher).values()) * B


# ---------------------------------------------------------------------------------------------------------------------
# The plan: from a budget to steps.

class Plan(NamedTuple):
    flops_budget: int
    flops_per_step: int
    steps: int
    flops_spent: int
    tokens: int
    epochs: float  # passes over the data; 0.0 where the data has no end
    finish_steps: int = 0           # how many of the steps, the last ones, are plain MLM (--mlm-finish)
    flops_per_finish_step: int = 0

    def spent(self, step):
        """FLOPs after `step` steps."""
        finishing = max(0, step - (self.steps - self.finish_steps))
        return (step - finishing) * self.flops_per_step + finishing * self.flops_per_finish_step


def plan(C, flops_per_step, B, T, unique_tokens=None, finish=0.0, flops_per_finish_step=0):
    """Whole steps, never above the budget C and less than one step below it. Raises UserError where C buys none.

    finish: the share of C that goes to a last phase with steps of another price."""
    last = int(C * finish) // flops_per_finish_step if finish else 0
    first = (C - last * flops_per_finish_step) // flops_per_step
    if finish and last < 1:
        raise UserError(f"the MLM finish gets {finish:.2%} of {flops(C)} FLOPs, below one step, which costs {flops(flops_per_finish_step)}: "
                        f"raise --mlm-finish or --flops")
    if first < 1:
        raise UserError(f"a budget of {flops(C)} FLOPs is below one step, which costs {flops(flops_per_step)}: "
                        f"raise --flops, or lower --batch-size, --seq-len or --model")
    steps, tokens = first + last, (first + last) * B * T
    return Plan(C, flops_per_step, steps, first * flops_per_step + last * flops_per_finish_step, tokens,
                tokens / unique_tokens if unique_tokens else 0.0, last, flops_per_finish_step if finish else 0)


# The students that a run without --model chooses from. Hoffmann et al. 2022 train with about 20 tokens a parameter.
LADDER = [size(text) for text in ("2x64h2", "2x96h3", "2x128", "4x128", "4x256", "6x384", "6x512", "6x768",
                                  "12x768", "12x1024", "24x1024")]
TOKENS_PER_PARAMETER = 20


def ladder(C, V, T):
    """[(size, tokens that C buys at the scratch price, those tokens a parameter of the encoder)], smallest first."""
    rows = []
    for rung in LADDER:
        tokens = C // step_flops(rung, V, T, 1) * T
        rows.append((rung, tokens, tokens / rung.encoder_parameters))
    return rows


def choose(C, V, T):
    """The largest rung that sees at least 20 tokens per parameter within C FLOPs; the smallest, where none does."""
    fitting = [rung for rung, _, ratio in ladder(C, V, T) if ratio >= TOKENS_PER_PARAMETER]
    return fitting[-1] if fitting else LADDER[0]


# ---------------------------------------------------------------------------------------------------------------------
# How numbers are written, here and in every other file.

def flops(n):
    """6981000000 -> '6.98e9': three significant digits."""
    return f"{n:.0f}" if n < 1e4 else f"{n:.2e}".replace("e+0", "e").replace("e+", "e")


def duration(seconds):
    """Seconds in words: '4.2 s', '42 s', '3 min 5 s', '7 h 20 min', '12 days 3 h', '1,900 years'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    units = (("min", 60, 60 * 60), ("h", 3600, 48 * 3600), ("days", 86400, 2 * 31557600))
    for (unit, length, below), (small, small_length) in zip(units, (("s", 1), ("min", 60), ("h", 3600))):
        if seconds < below:
            return f"{int(seconds // length):,} {unit} {int(seconds % length // small_length)} {small}"
    return f"{seconds / 31557600:,.0f} years"


def table(size, C, V, T, B, rate=None):
    """The bill and the plan as text, for people."""
    k, rows = masked_positions(T), forward_flops(size, V, T)
    total = sum(cost for _, _, cost in rows)
    lines = [f"BERT {size}: L = {size.L} layers, h = {size.h}, A = {size.A} heads, f = {size.f}, V = {V:,} words, "
             f"T = {T} tokens, k = {k} masked", "",
             f"{'forward, one sequence':24} {'formula':12} {'FLOPs':>22} {'share':>7}"]
    lines += [f"{name:24} {formula:12} {cost:22,} {cost / total:7.1%}" for name, formula, cost in rows]
    step = step_flops(size, V, T, B)
    lines += [f"{'forward':24} {'F':12} {total:22,} {1:7.1%}", "",
              f"{'forward + backward':24} {'3 F':12} {3 * total:22,}",
              f"{'a token':24} {'3 F / T':12} {3 * total / T:22,.0f}",
              f"{f'a step of B = {B}':24} {'3 F B':12} {step:22,}", ""]
    bought = plan(C, step, B, T)
    lines += [f"{flops(C)} FLOPs buy {bought.steps:,} steps = {bought.tokens:,} tokens "
              f"({bought.tokens / size.encoder_parameters:,.1f} for each of the encoder's {size.encoder_parameters:,} "
              f"weights), and leave {C - bought.flops_spent:,} FLOPs over"]
    if rate:
        lines += [f"at {flops(rate)} FLOP/s: {duration(bought.flops_spent / rate)}"]
    return "\n".join(lines)


def strategies(size, C, V, T, B, teacher, teacher_flops=0, students=1):
    """{strategy: its row of the comparison}, for those that this student and teacher allow; {strategy: why not} for others."""
    import distill  # which imports this file, and no torch either
    scratch = plan(C, step_flops(size, V, T, B), B, T)
    # Scratch could spend the student's share of the teacher's training on itself.
    richer = plan(C + teacher_flops // students, scratch.flops_per_step, B, T)
    rows, refused = {}, {}
    for name in distill.STRATEGIES:
        try:
            lesson = distill.lesson(name, size, teacher)
            bought = plan(C, step_flops(size, V, T, B, lesson, teacher), B, T)
        except UserError as failure:
            refused[name] = str(failure)
            continue
        parts = bill(size, V, T, lesson, teacher)
        rows[name] = {**bought._asdict(), "flops_per_token": sum(parts.values()) / T,
                      **{f"{part}_per_token": cost / T for part, cost in parts.items()},
                      "share_of_scratch_tokens": scratch.flops_per_step / bought.flops_per_step}
        if teacher_flops and name != "scratch":
            rows[name]["share_with_teacher_training"] = bought.tokens / richer.tokens
    return rows, refused


def comparison(rows, refused, teacher, teacher_flops, students):
    """The bills side by side, for people."""
    parts = ("student_forward", "student_backward", "teacher_forward", "loss")
    lines = [f"FLOPs a token, teacher BERT {teacher}", "",
             f"{'strategy':18} {'forward':>9} {'backward':>9} {'teacher':>9} {'loss':>9} {'sum':>9} {'tokens':>9} {'of scratch':>10}"
             + ("   with the teacher's training" if teacher_flops else "")]
    for name, row in rows.items():
        costs = [row[f"{part}_per_token"] for part in parts] + [row["flops_per_token"], row["tokens"]]
        lines += [f"{name:18} " + " ".join(f"{flops(cost):>9}" for cost in costs) + f" {row['share_of_scratch_tokens']:>10.1%}"
                  + (f" {row['share_with_teacher_training']:>10.1%}" if "share_with_teacher_training" in row else "")]
    lines += [f"{name:18} not for this pair: {why}" for name, why in refused.items()]
    if teacher_flops:
        lines += ["", f"The teacher's training cost {flops(teacher_flops)} FLOPs, {flops(teacher_flops // students)} for each of {students:,} "
                  f"student{'s' if students > 1 else ''}: the last column compares with a scratch student that had this, too."]
    return "\n".join(lines)


def main():
    parser = cli.Parser(description="What a training step costs in FLOPs, and what a budget of them buys.",
                        epilog="example:\n  python budget.py --model 6x768 --flops 1e17 --rate 3e14")
    add = parser.add_argument
    add("--model", type=size, metavar="LxH", help="size of the model (default: by the budget, from the ladder)")
    add("--flops", type=cli.number, default=10 ** 17, metavar="C", help="the budget (default: 1e17)")
    add("--vocab-size", type=cli.whole(6, 10 ** 7), default=30522, metavar="V", help="default: %(default)s")
    add("--seq-len", type=cli.whole(4, 10 ** 6), default=128, metavar="T", help="tokens in a sequence (default: %(default)s)")
    add("--batch-size", type=cli.whole(1, 10 ** 9), default=256, metavar="B", help="sequences in a step (default: %(default)s)")
    add("--rate", type=cli.number, metavar="R", help="FLOP/s of a machine, to say how long it takes")
    add("--teacher", type=size, metavar="LxH", help="size of a teacher: the bill of every strategy, side by side")
    add("--teacher-flops", type=cli.number, default=0, metavar="C_T", help="what the teacher's own training cost, to be charged")
    add("--students", type=cli.whole(1, 10 ** 9), default=1, metavar="n", help="students that share that cost (default: 1)")
    add("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    if args.teacher_flops and not args.teacher:
        raise UserError("--teacher-flops needs a teacher: say its size with --teacher, like --teacher 12x768")
    C, V, T, B = args.flops, args.vocab_size, args.seq_len, args.batch_size
    model = args.model or choose(C, V, T)
    rows, refused = strategies(model, C, V, T, B, args.teacher, args.teacher_flops, args.students)
    if not args.json:
        print(table(model, C, V, T, B, args.rate))
        if args.teacher:
            print("\n" + comparison(rows, refused, args.teacher, args.teacher_flops, args.students))
        return
    rows["scratch"]["components"] = {name: cost for name, _, cost in forward_flops(model, V, T)}
    for row in rows.values():
        if args.rate:
            row["seconds"] = row["flops_spent"] / args.rate
    print(json.dumps({"model": str(model), "encoder_parameters": model.encoder_parameters, "vocab_size": V, "seq_len": T,
                      "batch_size": B, "masked_positions": masked_positions(T), "teacher": args.teacher and str(args.teacher),
                      "teacher_flops": args.teacher_flops, "students": args.students, "strategies": rows, "refused": refused}))


if __name__ == "__main__":
    cli.program(main)
