"""Exercise 6: TinyBERT, of lists of hidden states (B, T, h') and of scores (B, A, T, T)."""
import torch

import distill
from distill import to_fp32

from .exercise import Exercise, Mistake, Mistakes, draw

TINYBERT_LOSS, TINYBERT_STRATEGY = distill.tinybert_loss, distill.tinybert  # the project's own


def pairs(H, H_T, S, S_T):
    """[(H_m, H'_g(m)) for m = 0..L_S], [(S_m, S'_g(m)) for m = 1..L_S] with g(m) = m L_T / L_S."""
    L, n = len(S), len(S_T) // len(S)
    hidden = [(H[m], H_T[m * n]) for m in range(L + 1)]
    scores = [(S[m - 1], S_T[m * n - 1]) for m in range(1, L + 1)]
    return hidden, scores


def mse(x, y):
    """The mean of the squared differences."""
    return (to_fp32(x) - to_fp32(y)).square().mean()


def tinybert_loss(H, H_T, S, S_T):
    """The right answer. The project's own function gets pairs, so that the mapping is here."""
    hidden, scores = pairs(H, H_T, S, S_T)
    return sum(mse(x, y) for x, y in hidden + scores)


def cases():
    all_sizes = ((2, 6, 2, 3, 5, 4, torch.float64), (1, 2, 1, 1, 2, 3, torch.float64),
                 (2, 4, 2, 3, 7, 11, torch.float64), (3, 3, 1, 2, 5, 6, torch.float64),
                 (1, 2, 2, 3, 5, 4, torch.bfloat16))
    return [case(*sizes) for sizes in all_sizes]


def case(L, L_T, B, A, T, h, dtype):
    """A case: the names of its sizes, and the four lists of tensors."""
    def tensors(first_seed, n, *shape):
        return [draw(seed, *shape).to(dtype) for seed in range(first_seed, first_seed + n)]

    hidden = tensors(0, L + 1, B, T, h), tensors(20, L_T + 1, B, T, h)
    scores = tensors(40, L, B, A, T, T), tensors(60, L_T, B, A, T, T)
    return {"B": B, "A": A, "T": T, "h'": h}, (*hidden, *scores)


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
    def tinybert(size, teacher, options):
        lesson = TINYBERT_STRATEGY(size, teacher, options)
        every = tuple(range(1, teacher.L + 1))

        def terms(s, t, labels, project):
            H = [project(s.hidden_states[m]) for m in lesson.student.hidden]
            H_T = [t.hidden_states[m] for m in (0, *every)]
            S, S_T = [s.scores[m] for m in lesson.student.scores], [t.scores[m] for m in every]
            return {"tinybert": student(H, H_T, S, S_T)}
        reads = distill.Reads(hidden=(0, *every), scores=every)
        return lesson._replace(teacher=reads, terms=terms)
    distill.STRATEGIES["tinybert"] = tinybert


# --------------------------------------------------------------------------------------------------
# Known mistakes: the wrong layers, of hidden states, of scores, or of both

# (what layer m of L learns from, its number g(m) with n = L_T / L_S, advice)
WRONG_LAYERS = (
    ("the teacher's first layers", lambda m, n, L: m,
     "g(m) = m L_T / L_S takes every n-th layer, so that the last learns from the last."),
    ("the teacher's last layers", lambda m, n, L: n * L - L + m,
     "g(m) = m L_T / L_S is spread over the whole teacher. TinyBERT compared with the last layers, "
     "which are another strategy."),
    ("the layer before the right one", lambda m, n, L: max(1, m * n - 1),
     "Layer g(m) stands at number g(m) of the hidden states, and at number g(m) - 1 of the "
     "scores."),
    ("the first layer of each group of n", lambda m, n, L: (m - 1) * n + 1,
     "g(m) is m n, not (m - 1) n + 1, so that the last learns from the last."))


def learns_from(g, wrong_hidden, wrong_scores):
    """A tinybert_loss whose hidden states, scores or both learn from the layers g(m)."""
    def loss(H, H_T, S, S_T):
        L, n = len(S), len(S_T) // len(S)
        layers = range(1, L + 1)
        right, wrong = [m * n for m in layers], [g(m, n, L) for m in layers]
        hidden = wrong if wrong_hidden else right
        scores = wrong if wrong_scores else right
        pairs = list(zip(H, [H_T[0]] + [H_T[m] for m in hidden]))
        pairs += zip(S, [S_T[m - 1] for m in scores])
        return sum(mse(x, y) for x, y in pairs)
    return loss


mistakes = Mistakes()
for layers, g, advice in WRONG_LAYERS:
    mistakes += [
        Mistake(f"All layers learn from {layers}.", learns_from(g, True, True), advice),
        Mistake(f"The hidden states learn from {layers}.", learns_from(g, True, False), advice),
        Mistake(f"The scores learn from {layers}.", learns_from(g, False, True), advice)]


# --------------------------------------------------------------------------------------------------
# Known mistakes: the losses of the layers


@mistakes.add
def no_embeddings(H, H_T, S, S_T):
    """The embeddings' output is left out.

    The first sum begins with m = 0."""
    hidden, scores = pairs(H, H_T, S, S_T)
    return sum(mse(x, y) for x, y in hidden[1:] + scores)


@mistakes.add
def after_the_softmax(H, H_T, S, S_T):
    """The scores are compared after the softmax.

    Equation 7 compares the scores before the softmax; the authors found that it learns faster."""
    hidden, scores = pairs(H, H_T, S, S_T)
    softmaxes = [(x.softmax(-1), y.softmax(-1)) for x, y in scores]
    return sum(mse(x, y) for x, y in hidden + softmaxes)


@mistakes.add
def no_scores(H, H_T, S, S_T):
    """The scores are left out.

    There are two sums: one over hidden states, and one over scores."""
    hidden, _ = pairs(H, H_T, S, S_T)
    return sum(mse(x, y) for x, y in hidden)


@mistakes.add
def squares_summed(H, H_T, S, S_T):
    """The squares are summed instead of averaged.

    MSE is the mean over all entries of a pair."""
    hidden, scores = pairs(H, H_T, S, S_T)
    return sum((x - y).square().sum() for x, y in hidden + scores)


@mistakes.add
def mean_over_layers(H, H_T, S, S_T):
    """The loss is the mean over the layers.

    The losses of the layers are added."""
    hidden, scores = pairs(H, H_T, S, S_T)
    return tinybert_loss(H, H_T, S, S_T) / len(hidden + scores)


@mistakes.add
def root(H, H_T, S, S_T):
    """The loss takes the root of the mean squares.

    MSE has no root."""
    hidden, scores = pairs(H, H_T, S, S_T)
    return sum((x - y).square().mean().sqrt() for x, y in hidden + scores)


@mistakes.add
def absolute(H, H_T, S, S_T):
    """The differences are absolute instead of squared.

    MSE is the mean of the squared differences."""
    hidden, scores = pairs(H, H_T, S, S_T)
    return sum((x - y).abs().mean() for x, y in hidden + scores)


@mistakes.add
def no_last_hidden_states(H, H_T, S, S_T):
    """The last layer's hidden states are left out.

    m runs to L_S, so that the last layer is included."""
    return tinybert_loss(H, H_T, S, S_T) - mse(H[-1], H_T[-1])


@mistakes.add
def last_layer_only(H, H_T, S, S_T):
    """Only the last layer learns.

    All layers learn. The paper's released code compares little more than the last one
    (tinybert_released)."""
    return tinybert_loss([H[0], H[-1]], [H_T[0], H_T[-1]], S[-1:], S_T[-1:])


TINYBERT = Exercise(
    file="6_tinybert.py", function="tinybert_loss", right=tinybert_loss, cases=cases,
    mistakes=mistakes, install=install, install_loop=install_loop, learns=(0, 2), tests=(
        "test_distill.py::test_tinybert_is_the_sum_of_the_mean_squared_errors",
        "test_distill.py::test_tinybert_of_two_tokens_by_hand"),
    hints={"out of range": "scores of layer 1 stand at number 0"})
