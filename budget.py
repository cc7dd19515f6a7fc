"""What a training step costs, in floating-point operations, and what a budget of them buys.

    python budget.py --model 6x768 --flops 1e17 --vocab-size 30522 --seq-len 128 --batch-size 256

Every run of this project obeys the formula below; nothing is estimated, and a step's bill is an integer.

Assumptions
 1. A matrix product (m x k)(k x n) costs 2mnk: m*n sums of k products, a multiplication and an addition each.
 2. Only matrix products count. Elementwise work (softmax, GELU, LayerNorm, biases, dropout) is free, and so is the
    embedding look-up, which multiplies nothing. At h = 768, T = 128 that leaves out about 0.4% of a block.
 3. Backward costs twice forward: of Y = XW it needs dX = dY W^T and dW = X^T dY, two products of the size of one.
 4. The MLM head (h x h transform, h x V decoder) runs at the masked positions only. Their number in a sequence is
    fixed, k = int(0.15 T + 0.5), so that all steps cost the same. At every position the head would cost 6.7 times this.
 5. The optimizer is elementwise, and validation is not training: both are free, and a run reports its validation.

tests/test_budget.py compares a step's bill with torch.utils.flop_counter, to the integer.

Symbols (the paper's, and ELECTRA's flops_computation.py, whose form this follows)
    L layers, h hidden size, A heads, f feed-forward size, V vocabulary, T sequence length, k masked positions,
    B sequences in a batch, C the budget in FLOPs.
"""
import json
import re
from typing import NamedTuple

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


# ---------------------------------------------------------------------------------------------------------------------
# The formula. Forward pass of one sequence, one line a component: (name, formula as text, FLOPs).

def encoder_flops(size, T):
    L, h, A, f = size
    return [
        ("queries, keys, values", "L * 6 T h^2", L * 6 * T * h * h),   # (T, h) @ (h, 3h)
        ("scores Q K^T",          "L * 2 T^2 h", L * 2 * T * T * h),   # A times (T, h/A) @ (h/A, T): A cancels
        ("weighted sum of V",     "L * 2 T^2 h", L * 2 * T * T * h),   # A times (T, T) @ (T, h/A)
        ("attention output",      "L * 2 T h^2", L * 2 * T * h * h),   # (T, h) @ (h, h)
        ("feed-forward",          "L * 4 T h f", L * 4 * T * h * f),   # (T, h) @ (h, f) and (T, f) @ (f, h)
    ]


def mlm_head_flops(size, V, k):
    h = size.h
    return [
        ("MLM head: transform", "2 k h^2", 2 * k * h * h),             # (k, h) @ (h, h)
        ("MLM head: decoder",   "2 k h V", 2 * k * h * V),             # (k, h) @ (h, V)
    ]


def forward_flops(size, V, T, k=None):
    """The components of one sequence's forward pass with the MLM head at k positions: [(name, formula, FLOPs)]."""
    return encoder_flops(size, T) + mlm_head_flops(size, V, masked_positions(T) if k is None else k)


def step_flops(size, V, T, B):
    """FLOPs of one optimizer step of masked language modelling on B sequences: forward, and backward at twice that."""
    forward = sum(flops for _, _, flops in forward_flops(size, V, T))
    return 3 * forward * B


# ---------------------------------------------------------------------------------------------------------------------
# The plan: from a budget to steps.

class Plan(NamedTuple):
    flops_budget: int
    flops_per_step: int
    steps: int
    flops_spent: int
    tokens: int
    epochs: float  # passes over the data; 0.0 where the data has no end


def plan(C, flops_per_step, B, T, unique_tokens=None):
    """Whole steps, never above the budget C and less than one step below it. Raises UserError where C buys none."""
    steps = C // flops_per_step
    if steps < 1:
        raise UserError(f"a budget of {flops(C)} FLOPs is below one step, which costs {flops(flops_per_step)}: "
                        f"raise --flops, or lower --batch-size, --seq-len or --model")
    tokens = steps * B * T
    return Plan(C, flops_per_step, steps, steps * flops_per_step, tokens, tokens / unique_tokens if unique_tokens else 0.0)


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
    add("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    C, V, T, B = args.flops, args.vocab_size, args.seq_len, args.batch_size
    model = args.model or choose(C, V, T)
    if not args.json:
        print(table(model, C, V, T, B, args.rate))
        return
    bought = plan(C, step_flops(model, V, T, B), B, T)
    row = {**bought._asdict(), "flops_per_token": bought.flops_per_step / (B * T),
           "components": {name: cost for name, _, cost in forward_flops(model, V, T)}}
    if args.rate:
        row["seconds"] = bought.flops_spent / args.rate
    print(json.dumps({"model": str(model), "encoder_parameters": model.encoder_parameters, "vocab_size": V, "seq_len": T,
                      "batch_size": B, "masked_positions": masked_positions(T), "strategies": {"scratch": row}}))


if __name__ == "__main__":
    cli.program(main)
