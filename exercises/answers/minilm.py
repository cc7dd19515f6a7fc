"""Exercise 7: MiniLM v2, of queries, keys and values (B, T, h) and (B, T, h')."""
import math

import distill
from distill import to_fp32

from .exercise import Exercise, Mistakes, draw, swap


def cases():
    cases = [case(*sizes) for sizes in ((2, 5, 6, 15, 3), (1, 2, 4, 4, 1), (2, 7, 12, 8, 4),
                                        (3, 5, 12, 12, 2))]
    large = case(2, 5, 6, 6, 2, change=lambda x: 30 * x)
    # bf16 computes the products of small whole numbers exactly: only the softmax can differ.
    bf16 = case(2, 5, 6, 15, 3, change=lambda x: x.round().clamp(-1, 1).bfloat16())
    return [*cases, large, bf16]


def case(B, T, h, h_T, R, change=lambda x: x):
    """A case: the names of its sizes, and the arguments."""
    qkv = tuple(change(draw(seed, B, T, h)) for seed in range(3))
    qkv_T = tuple(change(draw(seed, B, T, h_T)) for seed in range(10, 13))
    return {"B": B, "T": T, "h": h, "h'": h_T, "R": R}, (qkv, qkv_T, R)


# --------------------------------------------------------------------------------------------------
# Known mistakes


def log_relation(x, R, cut=distill.split, divisor=None, dim=3):
    """(B, T, h) -> (B, R, T, T): log softmax(X X^T / sqrt(d)), or a mistaken variant of it."""
    x = to_fp32(cut(x, R))                               # (B, T, h) -> (B, R, T, d)
    divisor = math.sqrt(x.shape[3]) if divisor is None else divisor
    return (x @ x.transpose(2, 3) / divisor).log_softmax(dim)


def kl(A, A_T):
    """Logarithms (B, R, T, T) of the student and of the teacher -> (B, R, T): KL(A' || A)."""
    return (A_T.exp() * (A_T - A)).sum(3)


def mean_of(qkv, qkv_T, relation, divergence=kl):
    """The mean of a divergence, over all its entries and over the kinds of relation."""
    terms = [divergence(relation(x), relation(x_T)).mean() for x, x_T in zip(qkv, qkv_T)]
    return sum(terms) / len(terms)


mistakes = Mistakes()


@mistakes.add
def reversed_kl(qkv, qkv_T, R):
    """KL is reversed.

    KL(teacher || student) is wanted: the teacher's rows give the probabilities."""
    return mean_of(qkv_T, qkv, lambda x: log_relation(x, R))


@mistakes.add
def no_root_d(qkv, qkv_T, R):
    """The division by sqrt(d) is missing.

    A relation is a scaled dot product: divide by sqrt(d) before the softmax."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R, divisor=1))


@mistakes.add
def no_root(qkv, qkv_T, R):
    """The products are divided by d instead of its root.

    Divide by sqrt(d)."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R, divisor=x.shape[2] // R))


@mistakes.add
def root_h(qkv, qkv_T, R):
    """The products are divided by sqrt(h) instead of sqrt(d).

    d = h / R is the width of a relation head."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R, divisor=math.sqrt(x.shape[2])))


@mistakes.add
def heads_mixed_with_positions(qkv, qkv_T, R):
    """The heads are mixed with the positions.

    A reshape (B, T, h) -> (B, R, T, d) gives a head the numbers of several positions. Go to
    (B, T, R, d) first, and then exchange T and R. The paper's released code makes this mistake
    (minilm_released)."""
    def mixed(x, R):
        B, T, h = x.shape
        return x.reshape(B, R, T, h // R)                # wrong: (B, T, h) -> (B, R, T, d)
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R, cut=mixed))


@mistakes.add
def cut_the_other_way(qkv, qkv_T, R):
    """The cut goes the other way, and a head gets every R-th number.

    A relation head holds d neighbouring numbers: cut h into (R, d), not into (d, R)."""
    def every_Rth(x, R):
        # wrong: (B, T, h) -> (B, T, d, R) -> (B, R, T, d)
        return x.unflatten(2, (-1, R)).permute(0, 3, 1, 2)
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R, cut=every_Rth))


@mistakes.add
def softmax_over_heads(qkv, qkv_T, R):
    """The softmax is taken over the heads.

    Each row of a relation sums to 1: take the softmax over the last axis."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R, dim=1))


@mistakes.add
def no_heads(qkv, qkv_T, R):
    """The relation heads are ignored.

    Cut the vectors into R pieces first."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, 1))


@mistakes.add
def relations_added(qkv, qkv_T, R):
    """The three relations are added instead of averaged.

    Each of the three has the weight 1/3."""
    return 3 * mean_of(qkv, qkv_T, lambda x: log_relation(x, R))


@mistakes.add
def queries_with_keys(qkv, qkv_T, R):
    """The relation is Q K^T instead of Q Q^T.

    Queries are compared with queries, keys with keys, and values with values."""
    def log_attention(q, k):
        q, k = (to_fp32(distill.split(x, R)) for x in (q, k))
        return (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).log_softmax(3)
    return kl(log_attention(*qkv[:2]), log_attention(*qkv_T[:2])).mean()


@mistakes.add
def queries_alone(qkv, qkv_T, R):
    """Only the queries are compared.

    There are three kinds of relation: of queries, of keys and of values."""
    return mean_of(qkv[:1], qkv_T[:1], lambda x: log_relation(x, R))


@mistakes.add
def values_alone(qkv, qkv_T, R):
    """Only the values are compared.

    There are three kinds of relation: of queries, of keys and of values."""
    return mean_of(qkv[2:], qkv_T[2:], lambda x: log_relation(x, R))


@mistakes.add
def log_overflows(qkv, qkv_T, R):
    """The logarithm of the softmax overflows.

    A softmax may be 0, and then its logarithm is -inf. Use log_softmax."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R).exp(),
                   lambda A, A_T: (A_T * (A_T.log() - A.log())).sum(3))


@mistakes.add
def no_values(qkv, qkv_T, R):
    """The values are left out.

    There are three kinds of relation: of queries, of keys and of values."""
    return 2 / 3 * mean_of(qkv[:2], qkv_T[:2], lambda x: log_relation(x, R))


@mistakes.add
def mean_over_a_row(qkv, qkv_T, R):
    """The loss is a mean over the entries of a row, too.

    KL is a sum over the row. The mean is over sequences, heads and positions."""
    T = qkv[0].shape[1]
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R)) / T


@mistakes.add
def summed_over_rows(qkv, qkv_T, R):
    """The rows are summed instead of averaged.

    The mean is over sequences, heads and positions."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R),
                   lambda A, A_T: kl(A, A_T).sum((1, 2)))


@mistakes.add
def cross_entropy(qkv, qkv_T, R):
    """The loss is the cross-entropy instead of KL.

    KL(P || Q) = sum P (log P - log Q) is 0 where both agree."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R),
                   lambda A, A_T: -(A_T.exp() * A).sum(3))


@mistakes.add
def squared_differences(qkv, qkv_T, R):
    """The relations are compared by their squared differences.

    Distributions are compared by KL here."""
    return mean_of(qkv, qkv_T, lambda x: log_relation(x, R),
                   lambda A, A_T: (A_T.exp() - A.exp()).square())


MINILM = Exercise(
    file="7_minilm.py", function="minilm_loss", right=distill.minilm_loss, cases=cases,
    mistakes=mistakes, install=swap(distill, "minilm_loss"), learns=(0,), tests=(
        "test_distill.py::test_minilm_is_the_mean_kl_of_the_three_relations_divided_by_3",
        "test_distill.py::test_minilm_of_two_tokens_by_hand"))
