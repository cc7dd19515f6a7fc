"""Exercise 1: the FLOPs of one block's forward pass."""
import budget
import distill

from .exercise import Case, Exercise, Mistakes

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
# Known mistakes: a wrong choice in one part, or in two of them


def answer(T, h, f, projections=lambda T, h: 8 * T * h * h, attention=lambda T, h: 4 * T * T * h,
           feed_forward=lambda T, h, f: 4 * T * h * f, change=lambda flops, T: flops):
    """A block_flops made of these parts."""
    return change(projections(T, h) + attention(T, h) + feed_forward(T, h, f), T)


THREE = "Queries, keys and values are three products (T, h) @ (h, h). Together they cost 6 T h^2."
JOINED = "The joined heads go through one more product (T, h) @ (h, h)."
BOTH_HALVES = ("The scores Q K^T are only the first half of attention. Multiplying softmax(S) by V "
               "costs 2 T^2 h once more. (Or both are there, and each is counted by multiply-adds: "
               "that gives the same number.)")
A_CANCELS = "Each head is only d = h / A wide. A heads of 2 T^2 d FLOPs each cost 2 T^2 h."
UP_AND_DOWN = ("The feed-forward part goes up to f and down to h again. Both products together "
               "cost 4 T h f.")
FORWARD_ALONE = ("The exercise asks for the forward pass alone. The backward pass costs twice that "
                 "on top.")
EACH_TOKEN = "The products have T rows, one for each token of the sequence."
MULTIPLY_ADDS = ("A product (m x k)(k x n) costs 2 m n k FLOPs (assumption 1 in budget.py). Some "
                 "papers count multiply-adds, which are half as many.")
PARTS = {
    "projections": [
        (lambda T, h: 4 * T * h * h, "One projection is counted instead of three.", THREE),
        (lambda T, h: 6 * T * h * h, "The attention output is left out.", JOINED),
        (lambda T, h: 2 * T * h * h, "Of the four projections one is counted.",
         f"{THREE} {JOINED}"),
        (lambda T, h: 10 * T * h * h, "One projection too many is counted.", f"{THREE} {JOINED}"),
        (lambda T, h: 0, "The projections are left out.", f"{THREE} {JOINED}"),
        (lambda T, h: 8 * h * h, "The projections are those of one token.", EACH_TOKEN)],
    "attention": [
        (lambda T, h: 0, "The T^2 products of attention are left out.",
         "The scores and the weighted sum cost 2 T^2 h each. The rule of thumb \"2 FLOPs for each "
         "weight and token\" leaves them out, since they contain no weight."),
        (lambda T, h: 2 * T * T * h, "The weighted sum of the values is left out.", BOTH_HALVES),
        (lambda T, h: 3 * T * T * h, "One of the two T^2 products is counted by multiply-adds.",
         MULTIPLY_ADDS),
        (lambda T, h: T * T * h, "Of attention there is a quarter.",
         "The scores Q K^T and the weighted sum cost 2 T^2 h each, since a multiply-add is two "
         "operations."),
        (lambda T, h: 4 * T * h, "The products of attention are those of one token.", EACH_TOKEN),
        (lambda T, h: 4 * T * h * h,
         "The products of attention are charged like projections, with h for T.",
         "The scores have T x T entries, and each is a sum of d products in each head: 2 T^2 h. "
         "The weighted sum costs the same."),
        (lambda T, h: 2 * T * T * h + 2 * T * h * h,
         "One of the two T^2 products is charged like a projection, with h for T.",
         "The scores have T x T entries, and each is a sum of d products in each head: 2 T^2 h. "
         "The weighted sum costs the same."),
        (lambda T, h: 4 * T * T * 64,
         "The products of attention are those of one head, of width 64.",
         "There are A = h / d heads. Together they cost 2 T^2 h for the scores, and the same for "
         "the weighted sum."),
        (lambda T, h: 4 * T * T * 12 * (h // 12), "The number of heads is taken to be 12.",
         f"{A_CANCELS} With h / 12 rounded down some of it gets lost."),
        (lambda T, h: 4 * T * T * h * 12, "The products of attention are multiplied by 12 heads.",
         f"{A_CANCELS} So A cancels."),
        (lambda T, h: 2 * T * T * h * (1 + max(1, h // 64)),
         "The scores are multiplied by the number of heads.", f"{A_CANCELS} So A cancels."),
        (lambda T, h: 4 * T * T * h * max(1, h // 64),
         "The products of attention are multiplied by the number of heads.",
         f"{A_CANCELS} So A cancels."),
        *((lambda T, h, cost=cost: 4 * T * T * h + cost * T * T, "The softmax is charged.",
           "Only matrix products count: softmax, GELU, LayerNorm and biases are free by convention "
           "(assumption 2 in budget.py).") for cost in (1, 2, 3, 4, 5))],
    "feed_forward": [
        (lambda T, h, f: 2 * T * h * f, "One of the two feed-forward products is left out.",
         UP_AND_DOWN),
        (lambda T, h, f: 0, "The feed-forward products are left out.", UP_AND_DOWN),
        (lambda T, h, f: 6 * T * h * f, "There is a third feed-forward product.", UP_AND_DOWN),
        (lambda T, h, f: 16 * T * h * h, "The feed-forward size f is taken to be 4 h.",
         "f is a size of its own: TinyBERT's student has h = 312 and f = 1200."),
        (lambda T, h, f: 4 * h * f, "The feed-forward products are those of one token.",
         EACH_TOKEN),
        (lambda T, h, f: 2 * T * h * f + 2 * T * f * f,
         "The second feed-forward product goes from f to f.", UP_AND_DOWN)],
    "change": [
        (lambda flops, T: flops // 2,
         "A multiplication and an addition are counted as one operation.", MULTIPLY_ADDS),
        (lambda flops, T: 3 * flops, "The backward pass is included.", FORWARD_ALONE),
        (lambda flops, T: 3 * flops // 2,
         "The backward pass is included, and multiply-adds are counted.",
         f"{FORWARD_ALONE} {MULTIPLY_ADDS}"),
        (lambda flops, T: flops // T, "The cost is that of one token instead of a sequence.",
         EACH_TOKEN)]}

mistakes = Mistakes()
pairs = mistakes.add_parts(answer, PARTS)


@mistakes.add
def fewer_additions(T, h, f):
    """An entry of a product is charged for k - 1 additions.

    That is exact, and the convention is simpler: a product (m x k)(k x n) costs 2 m n k FLOPs
    (assumption 1 in budget.py)."""
    entries = 4 * T * h + T * T + T * h + T * f + T * h
    return block_flops(T, h, f) - entries


@mistakes.add
def with_biases(T, h, f):
    """The biases are charged, one addition for each number.

    Only matrix products count: softmax, GELU, LayerNorm and biases are free by convention
    (assumption 2 in budget.py)."""
    return block_flops(T, h, f) + T * (5 * h + f)


@mistakes.add
def weights_counted(T, h, f):
    """The answer is the number of the block's weights.

    Each weight costs 2 FLOPs for each token, and attention comes on top."""
    return 4 * h * h + 2 * h * f


BLOCK = Exercise(
    file="1_block.py", function="block_flops", right=block_flops, cases=cases, mistakes=mistakes,
    pairs=pairs, install=install, tests=(
        "test_budget.py::test_bert_base_by_hand",
        "test_budget.py::test_six_layers_cost_283_million_a_token",
        "test_budget.py::test_a_step_costs_what_torch_counts",
        "test_budget.py::test_a_step_of_transformers_bert_costs_the_same"))
