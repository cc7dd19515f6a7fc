"""Exercise 6: TinyBERT, of lists of hidden states (B, T, h') and of scores (B, A, T, T)."""
from typing import Callable, NamedTuple

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, draw, wrong_parts

TINYBERT_LOSS, TINYBERT_STRATEGY = distill.tinybert_loss, distill.tinybert  # the project's own


def tinybert_loss(H, H_T, S, S_T):
    """The right answer. The project's own function gets pairs, so that the mapping is here: layer m
    learns from layer g(m) = m L_T / L_S."""
    L, n = len(S), len(S_T) // len(S)
    mapped_H = [H_T[m * n] for m in range(L + 1)]
    mapped_S = [S_T[m * n - 1] for m in range(1, L + 1)]
    return TINYBERT_LOSS(H, mapped_H, S, mapped_S)


def cases():
    return [case("two layers learn from six", (2, 6, 2, 3, 5, 4)),
            case("one layer learns from two, and one sequence", (1, 2, 1, 1, 2, 3)),
            case("two layers learn from four", (2, 4, 2, 3, 7, 11)),
            case("as many layers as the teacher", (3, 3, 1, 2, 5, 6)),
            case("tensors of bf16", (1, 2, 2, 3, 5, 4), torch.bfloat16)]


def case(name, sizes, dtype=torch.float64):
    """A Case of the four lists of tensors, of sizes (L_S, L_T, B, A, T, h')."""
    L, L_T, B, A, T, h = sizes

    def tensors(first_seed, n, *shape):
        return [draw(seed, *shape).to(dtype) for seed in range(first_seed, first_seed + n)]

    hidden = tensors(0, L + 1, B, T, h), tensors(20, L_T + 1, B, T, h)
    scores = tensors(40, L, B, A, T, T), tensors(60, L_T, B, A, T, T)
    names = "L_S", "L_T", "B", "A", "T", "h'"
    return Case(name, (*hidden, *scores), dict(zip(names, sizes)))


def install(student):
    """Makes the student's function the project's, which gets lists that are mapped already."""
    def tinybert_loss(H, H_T, S, S_T):
        if len(H) != len(H_T) or len(S) != len(S_T):
            raise ValueError("a layer without its pair")
        if not S or len(H) > len(S) + 1:
            return TINYBERT_LOSS(H, H_T, S, S_T)
        # A pair of equal tensors costs nothing. Such pairs stand for layers that are not compared.
        nothing = [S[0].new_zeros(1, 1, 1)] * (len(S) + 1 - len(H))
        return student([*nothing, *H], [*nothing, *H_T], list(S), list(S_T))
    distill.tinybert_loss = tinybert_loss


def install_loop(student):
    """In training the student's function gets all of the teacher's layers, and maps them itself."""
    distill.tinybert_loss = student
    distill.STRATEGIES["tinybert"] = tinybert_of_all_layers


def tinybert_of_all_layers(size, teacher, options):
    """The project's strategy, but that its loss gets all of the teacher's layers."""
    lesson = TINYBERT_STRATEGY(size, teacher, options)
    every = tuple(range(1, teacher.L + 1))

    def terms(s, t, labels, project):
        H = [project(s.hidden_states[m]) for m in lesson.student.hidden]
        H_T = [t.hidden_states[m] for m in (0, *every)]
        S, S_T = [s.scores[m] for m in lesson.student.scores], [t.scores[m] for m in every]
        return {"tinybert": distill.tinybert_loss(H, H_T, S, S_T)}
    reads = distill.Reads(hidden=(0, *every), scores=every)
    return lesson._replace(teacher=reads, terms=terms)


# --------------------------------------------------------------------------------------------------
# What the loss is made of

# The number of the teacher's layer that layer m of L learns from, with n = L_T // L. Number 0 is
# the embeddings' output, and -1 is the last layer, as in Python's lists.


def g(m, n, L, L_T):
    return m * n


def last_layers(m, n, L, L_T):
    return L_T - L + m


def one_before(m, n, L, L_T):
    return m * n - 1


def first_of_group(m, n, L, L_T):
    return (m - 1) * n + 1 if m else 0


def embeddings_counted(m, n, L, L_T):
    return m * ((L_T + 1) // (L + 1))


# How a pair is compared: two tensors -> a scalar


def difference(x, y):
    return to_fp32(x) - to_fp32(y)


def mse(x, y):
    """The mean of the squared differences."""
    return difference(x, y).square().mean()


def softmaxes(x, y):
    return mse(to_fp32(x).softmax(-1), to_fp32(y).softmax(-1))


def kl(x, y):
    return distill.kl(to_fp32(y).log_softmax(-1), to_fp32(x)).mean()


class Parts(NamedTuple):
    """What the loss is made of. With these parts it is right. `of_hidden` and `of_scores` give the
    layers; `hidden` and `scores` are those of the pairs that are compared; `reduce` makes a number
    of the losses of all pairs."""
    of_hidden: Callable = g
    of_scores: Callable = g
    hidden: slice = slice(None)
    scores: slice = slice(None)
    compare: tuple = (mse, mse)
    reduce: Callable = lambda hidden, scores: sum(hidden) + sum(scores)


def loss(H, H_T, S, S_T, parts=Parts()):
    L, L_T = len(S), len(S_T)
    hidden = [(H[m], H_T[parts.of_hidden(m, L_T // L, L, L_T)]) for m in range(L + 1)]
    scores = [(S[m - 1], S_T[parts.of_scores(m, L_T // L, L, L_T) - 1]) for m in range(1, L + 1)]
    of_hidden, of_scores = parts.compare
    return parts.reduce([of_hidden(x, y) for x, y in hidden[parts.hidden]],
                        [of_scores(x, y) for x, y in scores[parts.scores]])


# --------------------------------------------------------------------------------------------------
# Known mistakes

LAST = "g(m) is m n, so that the last layer learns from the last."
SPREAD_OUT = ("g(m) = m L_T / L_S is spread over the whole teacher. TinyBERT compared with the "
              "last layers, which are another strategy.")
WRONG_LAYERS = (
    (lambda m, n, L, L_T: m, "the teacher's first layers",
     "g(m) = m L_T / L_S takes every n-th layer, so that the last learns from the last."),
    (lambda m, n, L, L_T: last_layers(m, n, L, L_T) if m else 0, "the teacher's last layers",
     SPREAD_OUT),
    (first_of_group, "the first layer of each group of n", LAST),
    (lambda m, n, L, L_T: (m - 1) * n if m else 0, "the layer n before the right one",
     f"{LAST} In Python number -1 is the last one, and not an error."),
    (lambda m, n, L, L_T: max(1, one_before(m, n, L, L_T)) if m else 0,
     "the layer before the right one",
     "Layer g(m) stands at number g(m) of the hidden states, and at number g(m) - 1 of the "
     "scores."),
    (embeddings_counted, "every n-th layer, with the embeddings' output counted in n",
     "The embeddings' output is no layer. Count the scores: n = L_T / L_S."))
MSE_IS_A_MEAN = "MSE is the mean over all entries of a pair."
TWO_SUMS = "There are two sums: one over hidden states, and one over scores."
ADDED = "The losses of the layers are added."
ALL_M = "The first sum has all m from 0 to L_S, and the second one all m from 1 to L_S."
ROWS = [
    *((dict(of_hidden=which, of_scores=which), f"All layers learn from {words}.", advice)
      for which, words, advice in WRONG_LAYERS),
    *((dict(of_hidden=which), f"The hidden states learn from {words}.", advice)
      for which, words, advice in WRONG_LAYERS),
    *((dict(of_scores=which), f"The scores learn from {words}.", advice)
      for which, words, advice in WRONG_LAYERS),
    *((dict(of_hidden=last_layers, of_scores=of_scores),
       f"{who} learn from the teacher's last layers, and so does the embeddings' output.",
       SPREAD_OUT) for who, of_scores in (("All layers", last_layers), ("The hidden states", g))),
    *((dict(of_hidden=which), "The hidden states learn from the layer before the right one.",
       "Number 0 of the hidden states is the embeddings' output, so that layer g(m) stands at "
       "number g(m). Only in the scores it stands at g(m) - 1.")
      for which in (one_before, lambda m, n, L, L_T: one_before(m, n, L, L_T) if m else 0)),
    (dict(hidden=slice(1, None)), "The embeddings' output is left out.",
     "The first sum begins with m = 0."),
    (dict(hidden=slice(0, -1)), "The last layer's hidden states are left out.",
     "m runs to L_S, so that the last layer is included."),
    (dict(hidden=slice(0, 0)), "The hidden states are left out.", TWO_SUMS),
    (dict(scores=slice(0, 0)), "The scores are left out.", TWO_SUMS),
    (dict(scores=slice(0, -1)), "The last layer's scores are left out.",
     "m runs to L_S. Since number 0 holds the scores of layer 1, they stand at number L_S - 1."),
    (dict(scores=slice(1, None)), "The first layer's scores are left out.",
     "Number 0 holds the scores of layer 1: the second sum begins there."),
    (dict(hidden=slice(0, -1), of_scores=first_of_group),
     "m runs from 0 to L_S - 1 in both sums.",
     "Hidden states have m = 0 to L_S. Scores have m = 1 to L_S, and stand at number m - 1."),
    (dict(hidden=slice(-1, None), scores=slice(-1, None)), "Only the last layer is compared.",
     ALL_M),
    (dict(compare=(mse, softmaxes)), "The scores are compared after the softmax.",
     "Equation 7 compares the scores before the softmax; the authors found that it learns faster."),
    (dict(compare=(mse, kl)), "The scores are compared by KL.",
     "TinyBERT compares the scores before the softmax by MSE; MiniLM compares distributions by "
     "KL."),
    *((dict(compare=(wrong, wrong)), name, advice) for wrong, name, advice in (
        (lambda x, y: difference(x, y).square().sum(),
         "The squares are summed instead of averaged.", MSE_IS_A_MEAN),
        (lambda x, y: difference(x, y).square().sum(-1).mean(),
         "The squares are summed over the last axis.", MSE_IS_A_MEAN),
        (lambda x, y: difference(x, y).square().sum() / len(x),
         "The squares are averaged over the sequences only.", MSE_IS_A_MEAN),
        (lambda x, y: mse(x, y).sqrt(), "The loss takes the root of the mean squares.",
         "MSE has no root."),
        (lambda x, y: difference(x, y).norm(), "The loss is the norm of the difference.",
         "MSE is the mean of the squares, without a root."),
        (lambda x, y: difference(x, y).abs().mean(),
         "The differences are absolute instead of squared.",
         "MSE is the mean of the squared differences."),
        (lambda x, y: mse(x, y) / 2, "The loss is half of it.",
         "There is no factor 1/2 in these equations."))),
    (dict(reduce=lambda hidden, scores: (sum(hidden) + sum(scores)) / len(hidden + scores)),
     "The loss is the mean over the layers.", ADDED),
    (dict(reduce=lambda hidden, scores: sum(hidden) / len(hidden) + sum(scores) / len(scores)),
     "Both sums are averaged over the layers.", ADDED),
    (dict(reduce=lambda hidden, scores: (sum(hidden) + sum(scores)) / len(scores)),
     "The loss is divided by the number of layers.", ADDED)]

TINYBERT = Exercise(
    file="6_tinybert.py", function="tinybert_loss", right=tinybert_loss, cases=cases,
    mistakes=wrong_parts(loss, Parts(), ROWS), install=install, install_loop=install_loop,
    learns=(0, 2), tests=(
        "test_distill.py::test_tinybert_is_the_sum_of_the_mean_squared_errors",
        "test_distill.py::test_tinybert_of_two_tokens_by_hand"),
    hints={"out of range": "scores of layer 1 stand at number 0"})
