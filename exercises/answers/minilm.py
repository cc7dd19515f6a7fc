"""Exercise 7: MiniLM v2, of queries, keys and values (B, T, h) and (B, T, h')."""
import math
from functools import partial

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, Mistake, Mistakes, draw, swap


def cases():
    # bf16 computes the products of small whole numbers exactly: only the softmax can differ.
    return [case("a wider teacher", 2, 5, 6, 15, 3),
            case("batch of one, one relation head", 1, 2, 4, 4, 1),
            case("a narrower teacher", 2, 7, 12, 8, 4),
            case("student and teacher of one width", 3, 5, 12, 12, 2),
            case("large scores", 2, 5, 6, 6, 2, change=lambda x: 30 * x),
            case("tensors of bf16", 2, 5, 6, 15, 3,
                 change=lambda x: x.round().clamp(-1, 1).bfloat16())]


def case(name, B, T, h, h_T, R, change=lambda x: x):
    """A Case of the student's and the teacher's tensors."""
    qkv = tuple(change(draw(seed, B, T, h)) for seed in range(3))
    qkv_T = tuple(change(draw(seed, B, T, h_T)) for seed in range(10, 13))
    return Case(name, (qkv, qkv_T, R), {"B": B, "T": T, "h": h, "h'": h_T, "R": R})


# --------------------------------------------------------------------------------------------------
# What the loss is made of: `loss` with its defaults is right

# How a vector is cut: (B, T, h) -> (B, R, T, d)


def heads_mixed_with_positions(x, R):
    B, T, h = x.shape
    return x.reshape(B, R, T, h // R)                    # wrong: (B, T, h) -> (B, R, T, d)


def transposed_first(x, R):
    B, T, h = x.shape
    return x.transpose(1, 2).reshape(B, R, T, h // R)    # wrong: (B, h, T) -> (B, R, T, d)


def every_Rth(x, R):
    # wrong: (B, T, h) -> (B, T, d, R) -> (B, R, T, d)
    return x.unflatten(2, (-1, R)).permute(0, 3, 1, 2)


def not_exchanged(x, R):
    return x.unflatten(2, (R, -1))                       # wrong: it stays (B, T, R, d)


def no_heads(x, R):
    return x[:, None]                                    # wrong: (B, T, h) -> (B, 1, T, h)


# What the products are divided by: the widths d and d' of a relation head, the widths of the one
# that is divided and of the other, R, T -> a number


def root_d(d, other_d, R, T):
    return math.sqrt(d)


def one(d, other_d, R, T):
    return 1


def all_of_d(d, other_d, R, T):
    return d


def square_of_d(d, other_d, R, T):
    return d ** 2


def upside_down(d, other_d, R, T):
    return 1 / math.sqrt(d)


def root_h(d, other_d, R, T):
    return math.sqrt(d * R)


def root_R(d, other_d, R, T):
    return math.sqrt(R)


def root_T(d, other_d, R, T):
    return math.sqrt(T)


def of_the_other(d, other_d, R, T):
    return math.sqrt(other_d)


# How relations are compared: logarithms (B, R, T, T) of the student and of the teacher -> a number
# for each row


def kl(A, A_T):
    """KL(A' || A): (B, R, T)."""
    return (A_T.exp() * (A_T - A)).sum(-1)


def reversed_kl(A, A_T):
    return kl(A_T, A)


def cross_entropy(A, A_T):
    return -(A_T.exp() * A).sum(-1)


def reversed_cross_entropy(A, A_T):
    return cross_entropy(A_T, A)


def both_directions(A, A_T):
    return (kl(A, A_T) + kl(A_T, A)) / 2


def squares(A, A_T):
    return (A_T.exp() - A.exp()).square().mean(-1)


def sums_of_squares(A, A_T):
    return (A_T.exp() - A.exp()).square().sum(-1)


def squares_of_logarithms(A, A_T):
    return (A_T - A).square().mean(-1)


def teachers_logarithms(A, A_T):
    return (A_T * (A_T - A)).sum(-1)


def in_two_steps(A, A_T):
    return (A_T.exp() * (A_T.exp().log() - A.exp().log())).sum(-1)


def kl_of_logarithms(A, A_T):
    # torch's kl_div, which leaves out what is negative: the logarithms are not probabilities.
    return torch.nn.functional.kl_div(A, A_T, reduction="none").sum(-1)


# What is made of the rows (B, R, T), or (B, T, R) where the heads were not exchanged


def mean(rows):
    return rows.mean()


def mean_over_a_row(rows):
    return rows.mean() / rows.shape[2]


def sum_over_rows(rows):
    return rows.sum((1, 2)).mean()


def sum_of_all(rows):
    return rows.sum()


def sum_over_heads(rows):
    return rows.sum(1).mean()


def sum_over_positions(rows):
    return rows.sum(2).mean()


# The kinds of relation: pairs of what is compared with what, each a number in (q, k, v), and what
# the sum over them is multiplied by

ALIKE = ((0, 0), (1, 1), (2, 2))


def log_relation(x, y, R, other_d, cut, divide, dim):
    """(B, T, h), (B, T, h) -> (B, R, T, T): log softmax(X Y^T / sqrt(d))."""
    x, y = cut(to_fp32(x), R), cut(to_fp32(y), R)        # (B, T, h) -> (B, R, T, d)
    divisor = divide(x.shape[3], other_d, R, x.shape[2])
    return (x @ y.transpose(2, 3) / divisor).log_softmax(dim)


def loss(qkv, qkv_T, R, cut=distill.split, divide=(root_d, root_d), dim=3, compare=kl, reduce=mean,
         kinds=(ALIKE, 1 / 3)):
    """A minilm_loss made of these parts. `divide` is for the student and for the teacher."""
    d, d_T = qkv[0].shape[2] // R, qkv_T[0].shape[2] // R
    kinds, weight = kinds
    terms = []
    for i, j in kinds:
        A = log_relation(qkv[i], qkv[j], R, d_T, cut, divide[0], dim)
        A_T = log_relation(qkv_T[i], qkv_T[j], R, d, cut, divide[1], dim)
        terms.append(reduce(compare(A, A_T)))
    return weight * sum(terms)


# --------------------------------------------------------------------------------------------------
# Known mistakes: a wrong choice in one part, or in two of them

SCALED = "A relation is a scaled dot product: divide by sqrt(d) before the softmax."
OWN_D = "The student's d is h / R, and the teacher's is h' / R."
TEACHERS_ROWS = "KL(teacher || student) is wanted: the teacher's rows give the probabilities."
BY_KL = "Distributions are compared by KL here."
MEAN_OVER = "The mean is over sequences, heads and positions."
THIRDS = "Each of the three has the weight 1/3."
WITH_ALIKE = "Queries are compared with queries, keys with keys, and values with values."
THREE_KINDS = "There are three kinds of relation: of queries, of keys and of values."
PARTS = {
    "compare": [
        (reversed_kl, "KL is reversed.", TEACHERS_ROWS),
        (cross_entropy, "The loss is the cross-entropy instead of KL.",
         "KL(P || Q) = sum P (log P - log Q) is 0 where both agree. The cross-entropy is larger by "
         "the teacher's entropy, which has no gradient."),
        (reversed_cross_entropy,
         "The loss is the cross-entropy instead of KL, with student and teacher exchanged.",
         TEACHERS_ROWS),
        (both_directions, "The loss is the mean of KL in both directions.", TEACHERS_ROWS),
        (squares, "The relations are compared by their squared differences.", BY_KL),
        (sums_of_squares, "The relations are compared by sums of squared differences.", BY_KL),
        (squares_of_logarithms,
         "The logarithms of the relations are compared by their squared differences.", BY_KL),
        (teachers_logarithms, "The teacher's logarithms stand where its probabilities should.",
         "KL(P || Q) = sum P (log P - log Q): take exp of log P for the first P."),
        (kl_of_logarithms, "kl_div gets the teacher's logarithms.",
         "torch's kl_div wants the teacher's probabilities, or log_target=True."),
        (in_two_steps, "The logarithm of the softmax overflows.",
         "A softmax may be 0, and then its logarithm is -inf. Use log_softmax.")],
    "divide": [
        ((one, one), "The division by sqrt(d) is missing.", SCALED),
        ((all_of_d, all_of_d), "The products are divided by d instead of its root.",
         "Divide by sqrt(d)."),
        ((square_of_d, square_of_d), "The products are divided by d^2.", "Divide by sqrt(d)."),
        ((upside_down, upside_down), "The products are multiplied by sqrt(d).", SCALED),
        ((root_h, root_h), "The products are divided by sqrt(h) instead of sqrt(d).",
         "d = h / R is the width of a relation head."),
        ((root_R, root_R), "The products are divided by sqrt(R).",
         "d = h / R is the width of a relation head; R is their number."),
        ((root_T, root_T), "The products are divided by sqrt(T).",
         "d = h / R is the width of a relation head; T is the number of positions."),
        ((root_d, of_the_other), "The teacher's products are divided by the student's sqrt(d).",
         OWN_D),
        ((of_the_other, root_d), "The student's products are divided by the teacher's sqrt(d).",
         OWN_D)],
    "cut": [
        (heads_mixed_with_positions, "The heads are mixed with the positions.",
         "A reshape (B, T, h) -> (B, R, T, d) gives a head the numbers of several positions. Go to "
         "(B, T, R, d) first, and then exchange T and R. The paper's released code makes this "
         "mistake (minilm_released)."),
        (transposed_first, "The heads are mixed with the positions, after a transpose.",
         "A reshape of (B, h, T) gives a head the numbers of several positions. Go to (B, T, R, d) "
         "first, and then exchange T and R."),
        (every_Rth, "The cut goes the other way, and a head gets every R-th number.",
         "A relation head holds d neighbouring numbers: cut h into (R, d), not into (d, R)."),
        (not_exchanged, "The heads are compared within a position.",
         "Positions are compared within a head. After the cut exchange T and R: (B, T, R, d) -> "
         "(B, R, T, d)."),
        (no_heads, "The relation heads are ignored.", "Cut the vectors into R pieces first.")],
    "dim": [
        (1, "The softmax is taken over the heads.",
         "Each row of a relation sums to 1: take the softmax over the last axis.")],
    "reduce": [
        (mean_over_a_row, "The loss is a mean over the entries of a row, too.",
         f"KL is a sum over the row. {MEAN_OVER}"),
        (sum_over_rows, "The rows are summed instead of averaged.",
         f"{MEAN_OVER} torch's reduction \"batchmean\" divides by the number of sequences only."),
        (sum_of_all, "Sequences, heads and positions are summed instead of averaged.", MEAN_OVER),
        (sum_over_heads, "The relation heads are summed instead of averaged.", MEAN_OVER),
        (sum_over_positions, "The positions are summed instead of averaged.", MEAN_OVER)],
    "kinds": [
        ((ALIKE, 1), "The three relations are added instead of averaged.", THIRDS),
        ((((0, 1),), 1), "The relation is Q K^T instead of Q Q^T.", WITH_ALIKE),
        ((((0, 1), (2, 2)), 1), "The relations are those of MiniLM v1: Q K^T and V V^T.",
         WITH_ALIKE),
        ((((0, 1), (2, 2)), 1 / 2), "The relations are those of MiniLM v1: Q K^T and V V^T.",
         WITH_ALIKE),
        ((((0, 1), (1, 2), (2, 0)), 1 / 3), "The relations are Q K^T, K V^T and V Q^T.",
         WITH_ALIKE),
        ((tuple((i, j) for i in range(3) for j in range(3)), 1 / 9), "There are nine relations.",
         f"The paper defines nine, and trains with three. {WITH_ALIKE}"),
        *(((((i, i),), weight), f"Only the {word} are compared.", THREE_KINDS)
          for i, word in enumerate(("queries", "keys", "values")) for weight in (1, 1 / 3)),
        *(((((i, i), (j, j)), weight), f"The {word} are left out.", THREE_KINDS)
          for i, j, word in ((0, 1, "values"), (0, 2, "keys"), (1, 2, "queries"))
          for weight in (1 / 3, 1 / 2, 1))]}

mistakes = Mistakes()
pairs = mistakes.add_parts(loss, PARTS)


@mistakes.add
def joined(qkv, qkv_T, R):
    """Queries, keys and values are joined into one relation.

    There are three relations of their own, and the loss is the mean of theirs."""
    return loss([torch.cat(qkv, 2)], [torch.cat(qkv_T, 2)], R, kinds=(((0, 0),), 1))


@mistakes.add
def only_divided_as_if_cut(qkv, qkv_T, R):
    """The relation heads are ignored, but for the division by sqrt(h / R).

    Cut the vectors into R pieces first."""
    def divide(h, other_d, one, T):
        return math.sqrt(h / R)
    return loss(qkv, qkv_T, R, cut=no_heads, divide=(divide, divide))


@mistakes.add
def no_softmax(qkv, qkv_T, R):
    """The products are compared by their squared differences, without a softmax.

    Take the softmax of each row, and compare the distributions by KL."""
    def products(x):
        x = to_fp32(distill.split(x, R))
        return x @ x.transpose(2, 3) / math.sqrt(x.shape[3])
    return sum((products(x) - products(y)).square().mean() for x, y in zip(qkv, qkv_T)) / 3


@mistakes.add
def divided_after_the_softmax(qkv, qkv_T, R):
    """The loss is divided by sqrt(d), and the products are not.

    A relation is a scaled dot product: divide by sqrt(d) before the softmax."""
    return loss(qkv, qkv_T, R, divide=(one, one)) / math.sqrt(qkv[0].shape[2] // R)


@mistakes.add
def divided_after_log_softmax(qkv, qkv_T, R):
    """The division by sqrt(d) comes after log_softmax.

    A relation is a scaled dot product: divide by sqrt(d) before the softmax."""
    root, root_T = (math.sqrt(x[0].shape[2] // R) for x in (qkv, qkv_T))
    return loss(qkv, qkv_T, R, divide=(one, one),
                compare=lambda A, A_T: kl(A / root, A_T / root_T))


def log_of_a_sum(epsilon):
    """A small number is added to the softmax before the logarithm."""
    def compare(A, A_T):
        log_ratio = (A_T.exp() + epsilon).log() - (A.exp() + epsilon).log()
        return (A_T.exp() * log_ratio).sum(-1)
    return partial(loss, compare=compare)


mistakes += [Mistake("A small number is added to the softmax before the logarithm.",
                     log_of_a_sum(epsilon),
                     "That hides the overflow, and changes the loss where it matters most: where "
                     "the student's probability is small. Use log_softmax.")
             for epsilon in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)]


MINILM = Exercise(
    file="7_minilm.py", function="minilm_loss", right=distill.minilm_loss, cases=cases,
    mistakes=mistakes, pairs=pairs, install=swap(distill, "minilm_loss"), learns=(0,), tests=(
        "test_distill.py::test_minilm_is_the_mean_kl_of_the_three_relations_divided_by_3",
        "test_distill.py::test_minilm_of_two_tokens_by_hand"))
