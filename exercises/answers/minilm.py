"""Exercise 7: MiniLM v2, of queries, keys and values (B, T, h) and (B, T, h')."""
import math
from typing import Callable, NamedTuple

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, draw, swap, wrong_parts


def cases():
    # bf16 computes the products of small whole numbers exactly: only the softmax can differ.
    return [case("a wider teacher", (2, 5, 6, 15, 3)),
            case("batch of one, one relation head", (1, 2, 4, 4, 1)),
            case("a narrower teacher", (2, 7, 12, 8, 4)),
            case("student and teacher of one width", (3, 5, 12, 12, 2)),
            case("large scores", (2, 5, 6, 6, 2), change=lambda x: 30 * x),
            case("tensors of bf16", (2, 5, 6, 15, 3),
                 change=lambda x: x.round().clamp(-1, 1).bfloat16())]


def case(name, sizes, change=lambda x: x):
    """A Case of the student's and the teacher's tensors, of sizes (B, T, h, h', R)."""
    B, T, h, h_T, R = sizes
    qkv = tuple(change(draw(seed, B, T, h)) for seed in range(3))
    qkv_T = tuple(change(draw(seed, B, T, h_T)) for seed in range(10, 13))
    return Case(name, (qkv, qkv_T, R), dict(zip(("B", "T", "h", "h'", "R"), sizes)))


# --------------------------------------------------------------------------------------------------
# What the loss is made of

# What the products are divided by: d, the student's and the teacher's d, R -> a number


def root_d(d, student_d, teacher_d, R):
    return math.sqrt(d)


def one(d, student_d, teacher_d, R):
    return 1


def no_heads(x, R):
    return x[:, None]  # (B, T, h) -> (B, 1, T, h), so that d is h


# How relations are compared: logarithms (B, R, T, T) of the student and of the teacher -> a number
# for each row


def kl(A, A_T):
    """KL(A' || A): (B, R, T)."""
    return (A_T.exp() * (A_T - A)).sum(-1)


def reversed_kl(A, A_T):
    return kl(A_T, A)


# The kinds of relation: pairs of what is compared with what, each a number in (q, k, v), and what
# the sum over them is multiplied by

ALIKE = ((0, 0), (1, 1), (2, 2))
OF_V1 = ((0, 1), (2, 2))


class Parts(NamedTuple):
    """What the loss is made of. With these parts it is right."""
    cut: Callable = distill.split     # (B, T, h) -> (B, R, T, d)
    divisor: Callable = root_d
    compare: Callable = kl
    reduce: Callable = torch.mean     # the rows (B, R, T) -> a number
    kinds: tuple = (ALIKE, 1 / 3)


def loss(qkv, qkv_T, R, parts=Parts()):
    widths = qkv[0].shape[2] // R, qkv_T[0].shape[2] // R
    kinds, weight = parts.kinds
    rows = [parts.compare(log_relation(qkv[i], qkv[j], widths, R, parts),
                          log_relation(qkv_T[i], qkv_T[j], widths, R, parts)) for i, j in kinds]
    return weight * sum(map(parts.reduce, rows))


def log_relation(x, y, widths, R, parts):
    """(B, T, h), (B, T, h) -> (B, R, T, T): log softmax(X Y^T / sqrt(d))."""
    x, y = parts.cut(to_fp32(x), R), parts.cut(to_fp32(y), R)
    return (x @ y.transpose(2, 3) / parts.divisor(x.shape[3], *widths, R)).log_softmax(3)


# --------------------------------------------------------------------------------------------------
# Known mistakes

SCALED = "A relation is a scaled dot product: divide by sqrt(d) before the softmax."
THIRDS = "Each of the three has the weight 1/3."
BATCHMEAN = "torch's reduction \"batchmean\" divides by the number of sequences only."
OWN_D = "The student's d is h / R, and the teacher's is h' / R."
TEACHERS_ROWS = "KL(teacher || student) is wanted: the teacher's rows give the probabilities."
BY_KL = "Distributions are compared by KL here."
MEAN_OVER = "The mean is over sequences, heads and positions."
WITH_ALIKE = "Queries are compared with queries, keys with keys, and values with values."
THREE_KINDS = "There are three kinds of relation: of queries, of keys and of values."
HIDES = ("That hides the overflow, and changes the loss where it matters most: where the student's "
         "probability is small. Use log_softmax.")
ROWS = [
    (dict(compare=reversed_kl), "KL is reversed.", TEACHERS_ROWS),
    (dict(compare=lambda A, A_T: -(A_T.exp() * A).sum(-1)),
     "The loss is the cross-entropy instead of KL.",
     "KL(P || Q) = sum P (log P - log Q) is 0 where both agree. The cross-entropy is larger by the "
     "teacher's entropy, which has no gradient."),
    (dict(compare=lambda A, A_T: (A_T.exp() - A.exp()).square().mean(-1)),
     "The relations are compared by their squared differences.", BY_KL),
    (dict(compare=lambda A, A_T: (A_T * (A_T - A)).sum(-1)),
     "The teacher's logarithms stand where its probabilities should.",
     "KL(P || Q) = sum P (log P - log Q): take exp of log P for the first P."),
    (dict(compare=lambda A, A_T: torch.nn.functional.kl_div(A, A_T, reduction="none").sum(-1)),
     "kl_div gets the teacher's logarithms.",
     "torch's kl_div wants the teacher's probabilities, or log_target=True."),
    (dict(compare=lambda A, A_T: (A_T.exp() * (A_T - A.exp())).sum(-1)),
     "kl_div gets the student's probabilities.",
     "torch's kl_div wants the student's logarithms as its first argument: log_softmax."),
    (dict(divisor=one, kinds=(ALIKE, 1)),
     "The division by sqrt(d) is missing, and the three relations are added instead of averaged.",
     f"{SCALED} {THIRDS}"),
    (dict(compare=lambda A, A_T: (A_T.exp() * (A_T.exp().log() - A.exp().log())).sum(-1)),
     "The logarithm of the softmax overflows.",
     "A softmax may be 0, and then its logarithm is -inf. Use log_softmax."),
    *((dict(compare=lambda A, A_T, epsilon=epsilon: kl((A.exp() + epsilon).log(),
                                                       (A_T.exp() + epsilon).log())),
       "A small number is added to the softmax before the logarithm.", HIDES)
      for epsilon in (1e-6, 1e-8, 1e-9, 1e-10, 1e-12)),
    (dict(divisor=one), "The division by sqrt(d) is missing.",
     SCALED),
    (dict(divisor=lambda d, student_d, teacher_d, R: d),
     "The products are divided by d instead of its root.", "Divide by sqrt(d)."),
    (dict(divisor=lambda d, student_d, teacher_d, R: math.sqrt(d * R)),
     "The products are divided by sqrt(h) instead of sqrt(d).",
     "d = h / R is the width of a relation head."),
    (dict(divisor=lambda d, student_d, teacher_d, R: math.sqrt(R)),
     "The products are divided by sqrt(R).",
     "d = h / R is the width of a relation head; R is their number."),
    (dict(divisor=lambda d, student_d, teacher_d, R: math.sqrt(student_d)),
     "The teacher's products are divided by the student's sqrt(d).", OWN_D),
    (dict(divisor=lambda d, student_d, teacher_d, R: math.sqrt(teacher_d)),
     "The student's products are divided by the teacher's sqrt(d).", OWN_D),
    (dict(cut=lambda x, R: x.reshape(x.shape[0], R, x.shape[1], -1)),
     "The heads are mixed with the positions.",
     "A reshape (B, T, h) -> (B, R, T, d) gives a head the numbers of several positions. Go to "
     "(B, T, R, d) first, and then exchange T and R. The paper's released code makes this mistake "
     "(minilm_released)."),
    (dict(cut=lambda x, R: x.unflatten(2, (-1, R)).permute(0, 3, 1, 2)),
     "The cut goes the other way, and a head gets every R-th number.",
     "A relation head holds d neighbouring numbers: cut h into (R, d), not into (d, R)."),
    (dict(cut=lambda x, R: x.unflatten(2, (R, -1))), "The heads are compared within a position.",
     "Positions are compared within a head. After the cut exchange T and R: (B, T, R, d) -> "
     "(B, R, T, d)."),
    (dict(cut=no_heads), "The relation heads are ignored.", "Cut the vectors into R pieces first."),
    (dict(cut=no_heads, divisor=lambda d, student_d, teacher_d, R: math.sqrt(d / R)),
     "The relation heads are ignored, but for the division by sqrt(h / R).",
     "Cut the vectors into R pieces first."),
    (dict(reduce=lambda rows: rows.mean() / rows.shape[2]),
     "The loss is a mean over the entries of a row, too.",
     f"KL is a sum over the row. {MEAN_OVER}"),
    (dict(reduce=lambda rows: rows.sum((1, 2)).mean()), "The rows are summed instead of averaged.",
     f"{MEAN_OVER} {BATCHMEAN}"),
    (dict(compare=reversed_kl, reduce=lambda rows: rows.sum((1, 2)).mean()),
     "KL is reversed, and the rows are summed instead of averaged.",
     f"{TEACHERS_ROWS} {MEAN_OVER} {BATCHMEAN}"),
    (dict(reduce=torch.sum), "Sequences, heads and positions are summed instead of averaged.",
     MEAN_OVER),
    (dict(reduce=lambda rows: rows.sum(2).mean()), "The positions are summed instead of averaged.",
     MEAN_OVER),
    (dict(kinds=(ALIKE, 1)), "The three relations are added instead of averaged.", THIRDS),
    (dict(kinds=(((0, 1),), 1)), "The relation is Q K^T instead of Q Q^T.", WITH_ALIKE),
    *((dict(kinds=(OF_V1, weight)), "The relations are those of MiniLM v1: Q K^T and V V^T.",
       WITH_ALIKE) for weight in (1, 1 / 2)),
    *((dict(kinds=(((i, i),), weight)), f"Only the {word} are compared.", THREE_KINDS)
      for i, word in enumerate(("queries", "keys", "values")) for weight in (1, 1 / 3)),
    *((dict(kinds=(ALIKE[:2], weight)), "The values are left out.", THREE_KINDS)
      for weight in (1 / 3, 1 / 2, 1))]

MINILM = Exercise(
    file="7_minilm.py", function="minilm_loss", right=distill.minilm_loss, cases=cases,
    mistakes=wrong_parts(loss, Parts(), ROWS), install=swap(distill, "minilm_loss"), learns=(0,),
    tests=(
        "test_distill.py::test_minilm_is_the_mean_kl_of_the_three_relations_divided_by_3",
        "test_distill.py::test_minilm_of_two_tokens_by_hand"))
