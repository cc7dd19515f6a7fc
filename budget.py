"""What a training step costs in floating-point operations, and what a budget of them buys.

    python budget.py --model 6x768 --flops 1e17 --vocab-size 30522 --seq-len 128 --batch-size 256
    python budget.py --model 6x768 --flops 1e17 --teacher 12x768        # every strategy's bill

Every run of this project obeys the formula below. A bill is an integer, and nothing is estimated.

Assumptions
 1. A matrix product (m x k)(k x n) costs 2mnk: m*n sums of k products, which are a multiplication
    and an addition each.
 2. Only matrix products count. Elementwise work (softmax, GELU, LayerNorm, biases, dropout) is
    free, and so is the embedding look-up, which multiplies nothing. At h = 768 and T = 128 that
    leaves out about 0.4% of a layer.
 3. Backward costs twice forward: of Y = XW it needs dX = dY W^T and dW = X^T dY, which are two
    products of the size of one.
 4. The MLM head (h x h transform, h x V decoder) runs at the masked positions only. Their number in
    a sequence is fixed, k = int(0.15 T + 0.5), so that all steps cost the same. At every position
    the head would cost 6.7 times as much (T = 128).
 5. The optimizer is elementwise, and validation is not training: both are free, and a run reports
    its validation.
 6. A strategy (distill.py) declares what its loss reads of student and teacher. The models compute
    just that, and the bill charges just that: a pass ends in the deepest layer that is read, heads
    that no loss reads do not run, a teacher has no backward pass, and products inside a loss count.
 7. There is one exception. The paper's released code runs both passes to their end and both MLM
    heads, whatever its loss reads: the `-released` strategies are charged for that.

tests/test_budget.py compares a step's bill with torch.utils.flop_counter, to the integer.

Symbols (the paper's, and ELECTRA's flops_computation.py, whose form this follows)
    L layers, h hidden size, A heads, f feed-forward size, V vocabulary, T sequence length,
    k masked positions, B sequences in a batch, C the budget in FLOPs. A prime is the teacher's.
"""
import json
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from program import cli
from program.cli import UserError, flops
from program.settings import option, parsed

import distill
from distill import MLM, Lesson
from reporting import bills


class Size(NamedTuple):
    """The sizes of an encoder. `4x312h12f1200` is 4 layers of width 312, 12 heads and f = 1200."""
    L: int  # num_hidden_layers
    h: int  # hidden_size
    A: int  # num_attention_heads
    f: int  # intermediate_size

    def __str__(self):
        usual_A = self.h // 64 if self.h % 64 == 0 else None
        usual_f = 4 * self.h
        heads = f"h{self.A}" if self.A != usual_A or self.f != usual_f else ""
        feed_forward = f"f{self.f}" if self.f != usual_f else ""
        return f"{self.L}x{self.h}{heads}{feed_forward}"

    @property
    def encoder_parameters(self):
        """The weights of the encoder's matrix products, L (4h^2 + 2hf), without embeddings."""
        return self.L * (4 * self.h ** 2 + 2 * self.h * self.f)


def size(text):
    """`"6x768"` -> Size(6, 768, 12, 3072). Unless written as in `4x312h12f1200`, there are h/64
    heads and the feed-forward size is 4h.

    Raises UserError when the text is no size, or the heads do not divide h."""
    pattern = r"(\d{1,4})x(\d{1,6})(?:h(\d{1,4}))?(?:f(\d{1,6}))?"
    match = re.fullmatch(pattern, text.strip(), re.ASCII)
    if not match:
        raise UserError(f"{text!r} is no model size: write layers x hidden size, like 2x128, 6x768 "
                        "or 4x312h12f1200")
    L, h, A, f = (int(group) if group else None for group in match.groups())
    if A is None:
        if h % 64:
            fitting = max(heads for heads in range(1, max(1, h // 32) + 1) if h % heads == 0)
            raise UserError(f"{text}: {h} is not a multiple of 64, so say how many heads, "
                            f"like {L}x{h}h{fitting}")
        A = h // 64
    f = 4 * h if f is None else f
    if 0 in (L, h, A, f):
        raise UserError(f"{text}: layers, hidden size, heads and feed-forward size must be at "
                        "least 1")
    if h % A:
        raise UserError(f"{text}: {A} heads do not divide the hidden size {h}")
    return Size(L, h, A, f)


def masked_positions(T):
    """k: how many of a sequence's T tokens are masked, 15% rounded half up (Devlin et al. 2018,
    section 3.1)."""
    return (15 * T + 50) // 100  # int(0.15 T + 0.5) in integers: 0.15 is no binary fraction


# ---- The formula: the forward pass of one sequence, one line a component, (name, formula, FLOPs) -

def encoder_flops(size, T, reads=MLM):
    """The encoder's matrix products, as far as a loss reads the pass: [(name, formula, FLOPs)].

    `reads` says how many layers run to which point (distill.Depth). For plain MLM all three numbers
    are L; for MiniLM the last layer ends after its queries, keys and values."""
    L, h, A, f = size
    depth = reads.depth(L)

    def times(layers):
        return "L" if layers == L else str(layers)
    qkv, scores, whole = times(depth.qkv), times(depth.scores), times(depth.whole)
    return [
        # (T, h) @ (h, 3h)
        ("queries, keys, values", f"{qkv} * 6 T h^2", depth.qkv * 6 * T * h * h),
        # A times (T, h/A) @ (h/A, T): A cancels
        ("scores Q K^T",          f"{scores} * 2 T^2 h", depth.scores * 2 * T * T * h),
        # A times (T, T) @ (T, h/A)
        ("weighted sum of V",     f"{whole} * 2 T^2 h", depth.whole * 2 * T * T * h),
        # (T, h) @ (h, h)
        ("attention output",      f"{whole} * 2 T h^2", depth.whole * 2 * T * h * h),
        # (T, h) @ (h, f) and (T, f) @ (f, h)
        ("feed-forward",          f"{whole} * 4 T h f", depth.whole * 4 * T * h * f),
    ]


def mlm_head_flops(size, V, k):
    """The MLM head's products at k positions: [(name, formula, FLOPs)]."""
    h = size.h
    return [
        ("MLM head: transform", "2 k h^2", 2 * k * h * h),             # (k, h) @ (h, h)
        ("MLM head: decoder",   "2 k h V", 2 * k * h * V),             # (k, h) @ (h, V)
    ]


def loss_flops(size, T, reads, width=None):
    """The products inside a loss: [(name, formula, FLOPs)]. They are relations X X^T (MiniLM), and
    the projection of hidden states to the teacher's width h' (TinyBERT)."""
    h, rows = size.h, []
    r, m = len(reads.qkv) * reads.relations, len(reads.hidden)
    if r:  # R relation heads times (T, h/R) @ (h/R, T): R cancels
        rows.append(("relations", f"{r} * 2 T^2 h", r * 2 * T * T * h))
    if width:  # (T, h) @ (h, h')
        rows.append(("projection", f"{m} * 2 T h h'", m * 2 * T * h * width))
    return rows


def forward_flops(size, V, T, reads=MLM, width=None):
    """One sequence's forward pass, as far as it is read, with the loss, as such rows."""
    # F = L (8 T h^2 + 4 T^2 h + 4 T h f) + 2 k h (h + V), for plain MLM
    head = mlm_head_flops(size, V, masked_positions(T)) if reads.logits else []
    return encoder_flops(size, T, reads) + head + loss_flops(size, T, reads, width)


def bill(size, V, T, lesson=Lesson(), teacher=None):
    """FLOPs of one sequence in training, by what they are spent on. `teacher` is its Size."""
    def total(rows):
        return sum(cost for _, _, cost in rows)

    student_reads, teacher_reads = lesson.charged()
    loss = total(loss_flops(size, T, student_reads, lesson.width))
    forward = total(forward_flops(size, V, T, student_reads, lesson.width)) - loss
    teacher_loss = teacher_forward = 0
    if teacher_reads:
        teacher_loss = total(loss_flops(teacher, T, teacher_reads))
        teacher_forward = total(forward_flops(teacher, V, T, teacher_reads)) - teacher_loss
    # bill = 3 (F + loss) + F' + loss': the teacher's products have no backward pass
    return {"student_forward": forward, "student_backward": 2 * forward,
            "teacher_forward": teacher_forward, "loss": 3 * loss + teacher_loss}


def step_flops(size, V, T, B, lesson=Lesson(), teacher=None):
    """FLOPs of one optimizer step on B sequences."""
    return sum(bill(size, V, T, lesson, teacher).values()) * B


# ---- The plan: from a budget to steps ------------------------------------------------------------

class Plan(NamedTuple):
    """What a budget buys. The last `finish_steps` steps are plain MLM (--mlm-finish)."""
    flops_budget: int
    flops_per_step: int
    steps: int
    flops_spent: int
    tokens: int
    epochs: float  # passes over the data; 0.0 where the data has no end
    finish_steps: int = 0
    flops_per_finish_step: int = 0

    @property
    def finish_from(self):
        """The step with which the last phase begins."""
        return self.steps - self.finish_steps

    def spent(self, step):
        """FLOPs after `step` steps."""
        finish = max(0, step - self.finish_from)
        return (step - finish) * self.flops_per_step + finish * self.flops_per_finish_step


def plan(C, flops_per_step, B, T, unique_tokens=None, finish=(0.0, 0)):
    """The Plan of the most whole steps that cost at most C.

    finish: the share of C that goes to a last phase, and the FLOPs of a step there.
    Raises UserError where C buys no step, or none of the last phase."""
    finish, flops_per_finish_step = finish
    last = int(C * finish) // flops_per_finish_step if finish else 0
    first = (C - last * flops_per_finish_step) // flops_per_step
    if finish and last < 1:
        raise UserError(f"the MLM finish gets {finish:.2%} of {flops(C)} FLOPs, below one step, "
                        f"which costs {flops(flops_per_finish_step)}: raise --mlm-finish or "
                        "--flops")
    if first < 1:
        raise UserError(f"a budget of {flops(C)} FLOPs is below one step, which costs "
                        f"{flops(flops_per_step)}: raise --flops, or lower --batch-size, --seq-len "
                        "or --model")
    steps = first + last
    tokens = steps * B * T
    spent = first * flops_per_step + last * flops_per_finish_step
    epochs = tokens / unique_tokens if unique_tokens else 0.0
    return Plan(C, flops_per_step, steps, spent, tokens, epochs, last,
                flops_per_finish_step if finish else 0)


# The students that a run without --model chooses from. Hoffmann et al. 2022 train with about 20
# tokens for each parameter; here the encoder's parameters count.
LADDER = [size(text) for text in ("2x64h2", "2x96h3", "2x128", "4x128", "4x256", "6x384", "6x512",
                                  "6x768", "12x768", "12x1024", "24x1024")]
TOKENS_PER_PARAMETER = 20


def ladder(C, V, T):
    """[(size, tokens that C buys at the price of scratch, tokens for each parameter of the
    encoder)], the smallest size first."""
    rows = []
    for rung in LADDER:
        tokens = C // step_flops(rung, V, T, 1) * T
        rows.append((rung, tokens, tokens / rung.encoder_parameters))
    return rows


def choose(C, V, T):
    """The largest rung that sees at least 20 tokens per parameter within C FLOPs. The smallest,
    where none does."""
    fitting = [rung for rung, _, ratio in ladder(C, V, T) if ratio >= TOKENS_PER_PARAMETER]
    return fitting[-1] if fitting else LADDER[0]


# ---- The strategies side by side, and the command line -------------------------------------------

@dataclass(frozen=True)
class Settings:
    """What is asked of the bill: the options of the command line."""
    model: Size = option(None, "size of the model (default: by the budget)", size, "LxH")
    flops: int = option(10 ** 17, "budget (default: 1e17)", cli.number, "C")
    vocab_size: int = option(30522, "default: %(default)s", cli.whole(6, 10 ** 7), "V")
    seq_len: int = option(128, "tokens in a sequence (default: 128)", cli.whole(4, 10 ** 6), "T")
    batch_size: int = option(256, "sequences in a step (default: 256)", cli.whole(1, 10 ** 9), "B")
    rate: int = option(None, "a machine's FLOP/s, to say how long it takes", cli.number, "R")
    teacher: Size = option(None, "size of a teacher: print the bill of every strategy", size, "LxH")
    teacher_flops: int = option(0, "what its training cost, to be charged", cli.number, "C_T")
    students: int = option(1, "that share that cost (default: 1)", cli.whole(1, 10 ** 9), "n")
    json: bool = option(False, "print one JSON object instead of the table")


def read_settings(words=None):
    """The Settings of a command line. Raises UserError where --teacher-flops has no --teacher."""
    asked = parsed(Settings, "What a step costs in FLOPs, and what a budget buys.", words,
                   "example:\n  python budget.py --model 6x768 --flops 1e17 --rate 3e14")
    if asked.teacher_flops and not asked.teacher:
        raise UserError("--teacher-flops needs a teacher: say its size with --teacher, "
                        "like --teacher 12x768")
    return replace(asked, model=asked.model or choose(asked.flops, asked.vocab_size, asked.seq_len))


def strategies(asked):
    """({strategy: its row of the comparison}, {strategy: why this pair does not fit it})."""
    size, C, V, T, B = asked.model, asked.flops, asked.vocab_size, asked.seq_len, asked.batch_size
    scratch = plan(C, step_flops(size, V, T, B), B, T)
    # Where the teacher's training is charged, scratch gets the student's share of it, too.
    share = asked.teacher_flops // asked.students
    scratch_with_share = plan(C + share, scratch.flops_per_step, B, T)
    rows, refused = {}, {}
    for name in distill.STRATEGIES:
        try:
            lesson = distill.lesson(name, size, asked.teacher)
            bought = plan(C, step_flops(size, V, T, B, lesson, asked.teacher), B, T)
        except UserError as failure:
            refused[name] = str(failure)
            continue
        parts = bill(size, V, T, lesson, asked.teacher)
        rows[name] = {**bought._asdict(), "flops_per_token": sum(parts.values()) / T,
                      **{f"{part}_per_token": cost / T for part, cost in parts.items()},
                      "share_of_scratch_tokens": scratch.flops_per_step / bought.flops_per_step}
        if asked.rate:
            rows[name]["seconds"] = bought.flops_spent / asked.rate
        if asked.teacher_flops and name != "scratch":
            rows[name]["share_with_teacher_training"] = bought.tokens / scratch_with_share.tokens
    return rows, refused


def main():
    asked = read_settings()
    size, V, T, B = asked.model, asked.vocab_size, asked.seq_len, asked.batch_size
    rows, refused = strategies(asked)
    forward = forward_flops(size, V, T)
    if not asked.json:
        bought = plan(asked.flops, step_flops(size, V, T, B), B, T)
        print(bills.bill_table(asked, size, masked_positions(T), forward, bought))
        if asked.teacher:
            print("\n" + bills.comparison(rows, refused, asked.teacher, asked.teacher_flops,
                                          asked.students))
        return
    rows["scratch"]["components"] = {name: cost for name, _, cost in forward}
    print(json.dumps({
        "model": str(size), "encoder_parameters": size.encoder_parameters, "vocab_size": V,
        "seq_len": T, "batch_size": B, "masked_positions": masked_positions(T),
        "teacher": asked.teacher and str(asked.teacher), "teacher_flops": asked.teacher_flops,
        "students": asked.students, "strategies": rows, "refused": refused}))


if __name__ == "__main__":
    cli.program(main)
