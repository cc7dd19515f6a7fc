"""Exercise 1: the FLOPs of one block's forward pass."""
import budget
import distill

from .exercise import Exercise, Mistakes

ENCODER_FLOPS = budget.encoder_flops  # the project's own, also after `install`


def block_flops(T, h, f):
    """The project's answer: an encoder of one layer, with one head."""
    return sum(flops for _, _, flops in ENCODER_FLOPS(budget.Size(1, h, 1, f), T))


def cases():
    sizes = ((2, 4, 16), (128, 768, 3072), (32, 312, 1200), (512, 128, 512))
    return [({"T": T, "h": h, "f": f}, (T, h, f)) for T, h, f in sizes]


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

mistakes = Mistakes()


@mistakes.add
def multiply_adds(T, h, f):
    """A multiplication and an addition are counted as one operation.

    A product (m x k)(k x n) costs 2 m n k FLOPs (assumption 1 in budget.py). Some papers count
    multiply-adds, which are half as many."""
    return block_flops(T, h, f) // 2


@mistakes.add
def one_projection(T, h, f):
    """One projection is counted instead of three.

    Queries, keys and values are three products (T, h) @ (h, h). Together they cost 6 T h^2."""
    return block_flops(T, h, f) - 4 * T * h * h


@mistakes.add
def no_attention_products(T, h, f):
    """The T^2 products of attention are left out.

    The scores and the weighted sum cost 2 T^2 h each. The rule of thumb "2 FLOPs for each weight
    and token" leaves them out, since they contain no weight."""
    return block_flops(T, h, f) - 4 * T * T * h


@mistakes.add
def no_weighted_sum(T, h, f):
    """The weighted sum of the values is left out.

    The scores Q K^T are only the first half of attention. Multiplying softmax(S) by V costs 2 T^2 h
    once more."""
    return block_flops(T, h, f) - 2 * T * T * h


@mistakes.add
def no_attention_output(T, h, f):
    """The attention output is left out.

    The joined heads go through one more product (T, h) @ (h, h)."""
    return block_flops(T, h, f) - 2 * T * h * h


@mistakes.add
def one_feed_forward_product(T, h, f):
    """One of the two feed-forward products is left out.

    The feed-forward part goes up to f and down to h again. Both products together cost 4 T h f."""
    return block_flops(T, h, f) - 2 * T * h * f


@mistakes.add
def always_four_h(T, h, f):
    """The feed-forward size f is taken to be 4 h.

    f is a size of its own: TinyBERT's student has h = 312 and f = 1200."""
    return block_flops(T, h, 4 * h)


@mistakes.add
def with_backward(T, h, f):
    """The backward pass is included.

    The exercise asks for the forward pass alone. The backward pass costs twice that on top."""
    return 3 * block_flops(T, h, f)


@mistakes.add
def of_a_token(T, h, f):
    """The cost is that of one token instead of a sequence.

    The products have T rows, one for each token of the sequence."""
    return block_flops(T, h, f) // T


@mistakes.add
def scores_times_heads(T, h, f):
    """The scores are multiplied by the number of heads.

    Each head is only d = h / A wide. A heads of 2 T^2 d FLOPs each cost 2 T^2 h, so A cancels."""
    A = max(1, h // 64)
    return block_flops(T, h, f) + 2 * T * T * h * (A - 1)


BLOCK = Exercise(
    file="1_block.py", function="block_flops", right=block_flops, cases=cases, mistakes=mistakes,
    install=install, tests=(
        "test_budget.py::test_bert_base_by_hand",
        "test_budget.py::test_six_layers_cost_283_million_a_token",
        "test_budget.py::test_a_step_costs_what_torch_counts",
        "test_budget.py::test_a_step_of_transformers_bert_costs_the_same"))
