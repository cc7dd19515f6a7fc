"""Exercise 1: the FLOPs of one block's forward pass."""
from typing import Callable, NamedTuple

import budget
import distill

from .exercise import Case, Exercise, wrong_parts

ENCODER_FLOPS = budget.encoder_flops  # the project's own, also after `install`


def block_flops(T, h, f):
    """The project's answer: an encoder of one layer, with one head."""
    return sum(flops for _, _, flops in ENCODER_FLOPS(budget.Size(1, h, 1, f), T))


def cases():
    sizes = (("small enough for a sheet of paper", 2, 4, 16), ("BERT-base", 128, 768, 3072),
             ("TinyBERT's student, where f is not 4 h", 32, 312, 1200),
             ("more tokens than numbers in a vector", 512, 128, 512))
    return [Case(name, (T, h, f), {"T": T, "h": h, "f": f}) for name, T, h, f in sizes]


def install(student):
    """Makes the student's block the price of a layer, wherever all layers run to their end."""
    def encoder_flops(size, T, reads=distill.MLM):
        depth = reads.depth(size.L)
        if depth.qkv != depth.whole:  # the exercise knows no layer that is left half way
            return ENCODER_FLOPS(size, T, reads)
        return [("blocks", "", depth.whole * student(T, size.h, size.f))]
    budget.encoder_flops = encoder_flops


# --------------------------------------------------------------------------------------------------
# Known mistakes


class Parts(NamedTuple):
    """What the sum is made of. With these parts it is right."""
    projections: Callable = lambda T, h: 8 * T * h * h
    attention: Callable = lambda T, h: 4 * T * T * h
    feed_forward: Callable = lambda T, h, f: 4 * T * h * f
    change: Callable = lambda flops, T, h, f: flops


def block_of(T, h, f, parts=Parts()):
    flops = parts.projections(T, h) + parts.attention(T, h) + parts.feed_forward(T, h, f)
    return parts.change(flops, T, h, f)


THREE = "Queries, keys and values are three products (T, h) @ (h, h). Together they cost 6 T h^2."
JOINED = "The joined heads go through one more product (T, h) @ (h, h)."
A_CANCELS = "A heads of 2 T^2 d FLOPs each, with d = h / A, cost 2 T^2 h. So A cancels."
UP_AND_DOWN = ("The feed-forward part goes up to f and down to h again. Both products together "
               "cost 4 T h f.")
OWN_SIZE = "f is a size of its own: TinyBERT's student has h = 312 and f = 1200."
RULE_OF_THUMB = ("The rule of thumb \"2 FLOPs for each weight and token\" leaves them out, since "
                 "they contain no weight.")
MULTIPLY_ADDS = ("A product (m x k)(k x n) costs 2 m n k FLOPs (assumption 1 in budget.py). Some "
                 "papers count multiply-adds, which are half as many.")
PRODUCTS_ALONE = ("Only matrix products count: softmax, GELU, LayerNorm and biases are free by "
                  "convention (assumption 2 in budget.py).")
ROWS = [
    (dict(projections=lambda T, h: 4 * T * h * h), "One projection is counted instead of three.",
     THREE),
    (dict(projections=lambda T, h: 6 * T * h * h), "The attention output is left out.", JOINED),
    (dict(projections=lambda T, h: 2 * T * h * h), "Of the four projections one is counted.",
     f"{THREE} {JOINED}"),
    (dict(projections=lambda T, h: 0), "The projections are left out.", f"{THREE} {JOINED}"),
    (dict(attention=lambda T, h: 0), "The T^2 products of attention are left out.",
     f"The scores and the weighted sum cost 2 T^2 h each. {RULE_OF_THUMB}"),
    (dict(attention=lambda T, h: 2 * T * T * h), "The weighted sum of the values is left out.",
     "The scores Q K^T are only the first half of attention. Multiplying softmax(S) by V costs "
     "2 T^2 h once more. (Or both are there, and each is counted by multiply-adds: that gives the "
     "same number.)"),
    (dict(attention=lambda T, h: 4 * T * T), "The products of attention have no h.",
     "The scores have T x T entries, and each of them is a sum of d products in each of A heads. "
     "Together they cost 2 T^2 h, and the weighted sum costs the same."),
    (dict(attention=lambda T, h: 4 * T * h * h),
     "The products of attention are charged like projections, with h for T.",
     "The scores have T x T entries, and each is a sum of d products in each head: 2 T^2 h. "
     "The weighted sum costs the same."),
    (dict(attention=lambda T, h: 4 * T * T * h * 12),
     "The products of attention are multiplied by 12 heads.", A_CANCELS),
    (dict(attention=lambda T, h: 4 * T * T * h * max(1, h // 64)),
     "The products of attention are multiplied by the number of heads.", A_CANCELS),
    *((dict(attention=lambda T, h, cost=cost: 4 * T * T * h + cost * T * T),
       "The softmax is charged.", PRODUCTS_ALONE) for cost in (1, 2, 3, 4, 5)),
    (dict(feed_forward=lambda T, h, f: 2 * T * h * f),
     "One of the two feed-forward products is left out.", UP_AND_DOWN),
    (dict(feed_forward=lambda T, h, f: 0), "The feed-forward products are left out.", UP_AND_DOWN),
    (dict(feed_forward=lambda T, h, f: 16 * T * h * h),
     "The feed-forward size f is taken to be 4 h.",
     OWN_SIZE),
    (dict(change=lambda flops, T, h, f: flops // 2),
     "A multiplication and an addition are counted as one operation.", MULTIPLY_ADDS),
    (dict(change=lambda flops, T, h, f: 3 * flops), "The backward pass is included.",
     "The exercise asks for the forward pass alone. The backward pass costs twice that on top."),
    (dict(change=lambda flops, T, h, f: flops // T),
     "The cost is that of one token instead of a sequence.",
     "The products have T rows, one for each token of the sequence."),
    (dict(change=lambda flops, T, h, f: flops - T * (6 * h + T + f)),
     "An entry of a product is charged for k - 1 additions.",
     "That is exact, and the convention is simpler: a product (m x k)(k x n) costs 2 m n k FLOPs "
     "(assumption 1 in budget.py)."),
    (dict(change=lambda flops, T, h, f: flops + T * (5 * h + f)),
     "The biases are charged, one addition for each number.", PRODUCTS_ALONE),
    (dict(change=lambda flops, T, h, f: 4 * h * h + 2 * h * f),
     "The answer is the number of the block's weights.",
     "Each weight costs 2 FLOPs for each token, and attention comes on top."),
    (dict(change=lambda flops, T, h, f: 8 * h * h + 4 * h * f),
     "The answer is two FLOPs for each weight, those of one token.",
     f"A sequence has T tokens. And the T^2 products of attention are missing. {RULE_OF_THUMB}"),
    (dict(change=lambda flops, T, h, f: 12 * T * h * h + 2 * T * T * h),
     "Multiply-adds are counted, and the feed-forward size f is taken to be 4 h.",
     f"{MULTIPLY_ADDS} {OWN_SIZE}"),
    (dict(projections=lambda T, h: 6 * T * h * h, attention=lambda T, h: 2 * T * T * h),
     "The attention output and the weighted sum of the values are left out.", JOINED)]

BLOCK = Exercise(
    file="1_block.py", function="block_flops", right=block_flops, cases=cases,
    mistakes=wrong_parts(block_of, Parts(), ROWS), install=install, tests=(
        "test_budget.py::test_bert_base_by_hand",
        "test_budget.py::test_six_layers_cost_283_million_a_token",
        "test_budget.py::test_a_step_costs_what_torch_counts",
        "test_budget.py::test_a_step_of_transformers_bert_costs_the_same"))
