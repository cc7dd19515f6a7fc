"""Exercise 6: TinyBERT, of lists of hidden states (B, T, h') and of scores (B, A, T, T)."""
from functools import partial

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, Mistake, Mistakes, draw

TINYBERT_LOSS, TINYBERT_STRATEGY = distill.tinybert_loss, distill.tinybert  # the project's own


def tinybert_loss(H, H_T, S, S_T):
    """The right answer. The project's own function gets pairs, so that the mapping is here: layer m
    learns from layer g(m) = m L_T / L_S."""
    L, n = len(S), len(S_T) // len(S)
    mapped_H = [H_T[m * n] for m in range(L + 1)]
    mapped_S = [S_T[m * n - 1] for m in range(1, L + 1)]
    return TINYBERT_LOSS(H, mapped_H, S, mapped_S)


def cases():
    return [case("two layers learn from six", 2, 6, 2, 3, 5, 4),
            case("one layer learns from two, and one sequence", 1, 2, 1, 1, 2, 3),
            case("two layers learn from four", 2, 4, 2, 3, 7, 11),
            case("as many layers as the teacher", 3, 3, 1, 2, 5, 6),
            case("tensors of bf16", 1, 2, 2, 3, 5, 4, torch.bfloat16)]


def case(name, L, L_T, B, A, T, h, dtype=torch.float64):
    """A Case of the four lists of tensors."""
    def tensors(first_seed, n, *shape):
        return [draw(seed, *shape).to(dtype) for seed in range(first_seed, first_seed + n)]

    hidden = tensors(0, L + 1, B, T, h), tensors(20, L_T + 1, B, T, h)
    scores = tensors(40, L, B, A, T, T), tensors(60, L_T, B, A, T, T)
    sizes = {"L_S": L, "L_T": L_T, "B": B, "A": A, "T": T, "h'": h}
    return Case(name, (*hidden, *scores), sizes)


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
# What the loss is made of: `loss` with its defaults is right

# The number g of the teacher's layer that layer m of L learns from, with n = L_T // L


def g(m, n, L, L_T):
    return m * n


def first_layers(m, n, L, L_T):
    return m


def last_layers(m, n, L, L_T):
    return L_T - L + m


def one_before(m, n, L, L_T):
    return max(1, m * n - 1)


def counted_like_scores(m, n, L, L_T):
    return m * n - 1


def first_of_each_group(m, n, L, L_T):
    return (m - 1) * n + 1


def one_group_before(m, n, L, L_T):
    return (m - 1) * n


def middle_of_each_group(m, n, L, L_T):
    return (m - 1) * n + 1 + n // 2


def reversed_order(m, n, L, L_T):
    return (L - m + 1) * n


def embeddings_counted(m, n, L, L_T):
    return m * ((L_T + 1) // (L + 1))


def always_two(m, n, L, L_T):
    return min(2 * m, L_T)


def difference_of_lengths(m, n, L, L_T):
    return min(m * (L_T - L), L_T)


# How a pair is compared: two tensors -> a scalar


def difference(x, y):
    return to_fp32(x) - to_fp32(y)


def mse(x, y):
    """The mean of the squared differences."""
    return difference(x, y).square().mean()


def sum_of_squares(x, y):
    return difference(x, y).square().sum()


def sum_over_last_axis(x, y):
    return difference(x, y).square().sum(-1).mean()


def sum_over_all_but_sequences(x, y):
    return difference(x, y).square().sum() / len(x)


def root(x, y):
    return mse(x, y).sqrt()


def norm(x, y):
    return difference(x, y).norm()


def absolute(x, y):
    return difference(x, y).abs().mean()


def square_of_the_mean(x, y):
    return difference(x, y).mean().square()


def huber(x, y):
    return torch.nn.functional.smooth_l1_loss(to_fp32(x), to_fp32(y))


def half(x, y):
    return mse(x, y) / 2


def cosine(x, y):
    return (1 - torch.cosine_similarity(to_fp32(x), to_fp32(y), dim=-1)).mean()


def softmaxes(x, y):
    return mse(to_fp32(x).softmax(-1), to_fp32(y).softmax(-1))


def logarithms(x, y):
    return mse(to_fp32(x).log_softmax(-1), to_fp32(y).log_softmax(-1))


def kl(x, y):
    return distill.kl(to_fp32(y).log_softmax(-1), to_fp32(x)).mean()


def kl_of_a_sequence(x, y):
    return distill.kl(to_fp32(y).log_softmax(-1), to_fp32(x)).sum() / len(x)


# What is made of the losses of all hidden states and of all scores


def added(hidden, scores):
    return sum(hidden) + sum(scores)


def averaged(hidden, scores):
    return added(hidden, scores) / len(hidden + scores)


def each_averaged(hidden, scores):
    return sum(hidden) / len(hidden) + sum(scores) / len(scores)


def averaged_over_layers(hidden, scores):
    return added(hidden, scores) / len(scores)


def loss(H, H_T, S, S_T, layers=(g, g), compare=(mse, mse), hidden=slice(None), scores=slice(None),
         reduce=added):
    """A tinybert_loss made of these parts. `layers` and `compare` are those of the hidden states
    and of the scores; `hidden` and `scores` cut parts out of the lists of pairs."""
    L, L_T = len(S), len(S_T)
    g_H, g_S = ([which(m, L_T // L, L, L_T) for m in range(1, L + 1)] for which in layers)
    of_hidden, of_scores = compare
    hidden_pairs = list(zip(H, [H_T[0]] + [H_T[m] for m in g_H]))
    score_pairs = list(zip(S, [S_T[m - 1] for m in g_S]))
    return reduce([of_hidden(x, y) for x, y in hidden_pairs[hidden]],
                  [of_scores(x, y) for x, y in score_pairs[scores]])


# --------------------------------------------------------------------------------------------------
# Known mistakes: a wrong choice in one part, or in two of them

LAST = "g(m) is m n, so that the last layer learns from the last."
WRONG_LAYERS = (
    (first_layers, "the teacher's first layers",
     "g(m) = m L_T / L_S takes every n-th layer, so that the last learns from the last."),
    (last_layers, "the teacher's last layers",
     "g(m) = m L_T / L_S is spread over the whole teacher. TinyBERT compared with the last layers, "
     "which are another strategy."),
    (one_before, "the layer before the right one",
     "Layer g(m) stands at number g(m) of the hidden states, and at number g(m) - 1 of the "
     "scores."),
    (counted_like_scores, "the layer before the right one",
     "Number 0 of the hidden states is the embeddings' output, so that layer g(m) stands at number "
     "g(m). Only in the scores it stands at g(m) - 1."),
    (first_of_each_group, "the first layer of each group of n", LAST),
    (middle_of_each_group, "the middle layer of each group of n", LAST),
    (one_group_before, "the layer n before the right one",
     f"{LAST} In Python number -1 is the last one, and not an error."),
    (reversed_order, "the layers in the reversed order",
     "g(m) = m n rises with m: the first learns from a low layer, the last from the last."),
    (embeddings_counted, "every n-th layer, with the embeddings' output counted in n",
     "The embeddings' output is no layer. Count the scores: n = L_T / L_S."),
    (always_two, "every second layer", "n = L_T / L_S is not always 2."),
    (difference_of_lengths, "every (L_T - L_S)-th layer", "n is the ratio L_T / L_S."))

MSE_IS_A_MEAN = "MSE is the mean over all entries of a pair."
# (how hidden states are compared, how scores are, the mistake, advice)
WRONG_COMPARISONS = (
    (mse, softmaxes, "The scores are compared after the softmax.",
     "Equation 7 compares the scores before the softmax; the authors found that it learns faster."),
    (mse, logarithms, "The scores are compared after log_softmax.",
     "Equation 7 compares the scores before the softmax."),
    (mse, kl, "The scores are compared by KL.",
     "TinyBERT compares the scores before the softmax by MSE; MiniLM compares distributions by "
     "KL."),
    (mse, kl_of_a_sequence, "The scores are compared by KL, summed over heads and positions.",
     "TinyBERT compares the scores before the softmax by MSE; MiniLM compares distributions by "
     "KL."),
    (cosine, mse, "The hidden states are compared by their cosine.",
     "Hidden states are compared by MSE, like the scores."),
)
# (how both are compared, or one of them, the mistake, advice)
WRONG_IN_BOTH = (
    (sum_of_squares, "The squares are summed instead of averaged.", MSE_IS_A_MEAN),
    (sum_over_last_axis, "The squares are summed over the last axis.", MSE_IS_A_MEAN),
    (sum_over_all_but_sequences, "The squares are averaged over the sequences only.",
     MSE_IS_A_MEAN),
    (square_of_the_mean, "The mean is squared instead of the differences.",
     "MSE is the mean of the squares. In the square of a mean differences of two signs cancel."),
    (root, "The loss takes the root of the mean squares.", "MSE has no root."),
    (norm, "The loss is the norm of the difference.",
     "MSE is the mean of the squares, without a root."),
    (absolute, "The differences are absolute instead of squared.",
     "MSE is the mean of the squared differences."),
    (huber, "The loss is torch's smooth_l1_loss.",
     "MSE is the mean of the squared differences, however large they are."),
    (half, "The loss is half of it.", "There is no factor 1/2 in these equations."))

# The embeddings' pair is number 0 of the hidden states' pairs.
TWO_SUMS = "There are two sums: one over hidden states, and one over scores."
ADDED = "The losses of the layers are added."
PARTS = {
    "layers": [
        *(((which, which), f"All layers learn from {words}.", advice)
          for which, words, advice in WRONG_LAYERS if which != counted_like_scores),
        *(((which, g), f"The hidden states learn from {words}.", advice)
          for which, words, advice in WRONG_LAYERS),
        *(((g, which), f"The scores learn from {words}.", advice)
          for which, words, advice in WRONG_LAYERS if which != counted_like_scores)],
    "hidden": [
        (slice(1, None), "The embeddings' output is left out.",
         "The first sum begins with m = 0."),
        (slice(0, -1), "The last layer's hidden states are left out.",
         "m runs to L_S, so that the last layer is included."),
        (slice(0, 0), "The hidden states are left out.", TWO_SUMS),
        (slice(0, 1), "Of the hidden states only the embeddings' output is compared.",
         "The first sum goes on with m = 1 to L_S."),
        (slice(-1, None), "Of the hidden states only the last layer's are compared.",
         "The first sum has all m from 0 to L_S.")],
    "scores": [
        (slice(0, 0), "The scores are left out.", TWO_SUMS),
        (slice(0, -1), "The last layer's scores are left out.",
         "m runs to L_S. Since number 0 holds the scores of layer 1, they stand at number "
         "L_S - 1."),
        (slice(1, None), "The first layer's scores are left out.",
         "Number 0 holds the scores of layer 1: the second sum begins there."),
        (slice(-1, None), "Of the scores only the last layer's are compared.",
         "The second sum has all m from 1 to L_S.")],
    "compare": [
        *(((of_hidden, of_scores), name, advice)
          for of_hidden, of_scores, name, advice in WRONG_COMPARISONS),
        *(((wrong, wrong), name, advice) for wrong, name, advice in WRONG_IN_BOTH),
        *(((wrong, mse), f"{name} That is so with the hidden states.", advice)
          for wrong, name, advice in WRONG_IN_BOTH),
        *(((mse, wrong), f"{name} That is so with the scores.", advice)
          for wrong, name, advice in WRONG_IN_BOTH)],
    "reduce": [
        (averaged, "The loss is the mean over the layers.", ADDED),
        (each_averaged, "Both sums are averaged over the layers.", ADDED),
        (averaged_over_layers, "The loss is divided by the number of layers.", ADDED)]}

mistakes = Mistakes()
pairs = mistakes.add_parts(loss, PARTS)
pairs += [
    Mistake(f"The hidden states learn from {words}, and the scores from {other_words}.",
            partial(loss, layers=(which, other)), f"{advice} {other_advice}")
    for which, words, advice in WRONG_LAYERS for other, other_words, other_advice in WRONG_LAYERS
    if which != other and other != counted_like_scores]


@mistakes.add
def no_last_layer(H, H_T, S, S_T):
    """The last layer is left out.

    m runs to L_S, so that the last layer is included."""
    return loss(H, H_T, S, S_T, hidden=slice(0, -1), scores=slice(0, -1))


@mistakes.add
def embeddings_twice(H, H_T, S, S_T):
    """The embeddings' output is counted twice.

    It is number 0 of the hidden states, and the first sum has it already."""
    return loss(H, H_T, S, S_T) + mse(H[0], H_T[0])


@mistakes.add
def last_layer_only(H, H_T, S, S_T):
    """Only the last layer learns.

    All layers learn. The paper's released code compares little more than the last one
    (tinybert_released)."""
    return tinybert_loss([H[0], H[-1]], [H_T[0], H_T[-1]], S[-1:], S_T[-1:])


@mistakes.add
def shifted(H, H_T, S, S_T):
    """The hidden states are paired one too early: layer m learns from layer g(m - 1).

    The embeddings' output learns from the teacher's embeddings' output, number 0 from number 0."""
    n = len(S_T) // len(S)
    shifted_pairs = zip(H[1:], H_T[::n])
    return sum(mse(x, y) for x, y in shifted_pairs) + loss(H, H_T, S, S_T, hidden=slice(0, 0))


@mistakes.add
def shifted_on(H, H_T, S, S_T):
    """The hidden states are paired one too late: layer m learns from layer g(m + 1).

    Number 0 learns from number 0, and number m from number g(m)."""
    n = len(S_T) // len(S)
    shifted_pairs = [(H[0], H_T[0]), *zip(H, H_T[n::n])]
    return sum(mse(x, y) for x, y in shifted_pairs) + loss(H, H_T, S, S_T, hidden=slice(0, 0))


@mistakes.add
def all_with_all(H, H_T, S, S_T):
    """Each layer learns from all of the teacher's layers.

    Layer m learns from layer g(m) alone."""
    return sum(mse(x, y) for x in H for y in H_T) + sum(mse(x, y) for x in S for y in S_T)


@mistakes.add
def mean_of_each_group(H, H_T, S, S_T):
    """Each layer learns from the mean of n layers.

    Layer m learns from layer g(m) alone."""
    n = len(S_T) // len(S)
    means_H = [sum(map(to_fp32, H_T[1:][i:i + n])) / n for i in range(0, len(S_T), n)]
    means_S = [sum(map(to_fp32, S_T[i:i + n])) / n for i in range(0, len(S_T), n)]
    return tinybert_loss(H, [H_T[0], *means_H], S, means_S)


TINYBERT = Exercise(
    file="6_tinybert.py", function="tinybert_loss", right=tinybert_loss, cases=cases,
    mistakes=mistakes, pairs=pairs, install=install, install_loop=install_loop, learns=(0, 2),
    tests=(
        "test_distill.py::test_tinybert_is_the_sum_of_the_mean_squared_errors",
        "test_distill.py::test_tinybert_of_two_tokens_by_hand"),
    hints={"out of range": "scores of layer 1 stand at number 0"})
