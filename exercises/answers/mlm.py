"""Exercise 4: the loss of masked language modelling, of logits (N, V) and labels (N,)."""
import math

import torch

import distill
from distill import to_fp32

from .exercise import Exercise, Mistakes, draw, swap


def cases():
    y = torch.tensor([1, -100, 4, 0, -100, 2, 3])
    odds_of_3_to_1 = torch.tensor([[math.log(3), 0.0]])
    large = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
    bf16 = torch.zeros(3, 4096, dtype=torch.bfloat16)
    return [({"N": 7, "V": 5}, (draw(1, 7, 5), y)),
            ({"N": 1, "V": 2}, (odds_of_3_to_1, torch.tensor([0]))),
            ({"N": 7, "V": 11}, (3 * draw(2, 7, 11), y)),
            ({"N": 2, "V": 3}, (large, torch.tensor([0, 1]))),
            ({"N": 3, "V": 4}, (draw(3, 3, 4), torch.tensor([-100, -100, -100]))),
            ({"N": 3, "V": 4096}, (bf16, torch.tensor([0, 1, 2])))]


# --------------------------------------------------------------------------------------------------
# Known mistakes


def at_labels(values, y):
    """values (N, V), labels (N,) -> (N,). Where there is no label, it is the value of word 0."""
    return values.gather(1, y.clamp(min=0)[:, None]).squeeze(1)


def surprise(z, y, dim=1):
    """z (N, V), y (N,) -> (N,): -log softmax(z_n)[y_n]."""
    return -at_labels(to_fp32(z).log_softmax(dim), y)


def mean_over_labels(values, y):
    """values (N,), y (N,) -> their mean over the positions that have a label."""
    return (values * (y >= 0)).sum() / number_of_labels(y)


def number_of_labels(y):
    """At least 1, to divide by it."""
    return (y >= 0).sum().clamp(min=1)


mistakes = Mistakes()


@mistakes.add
def softmax_overflows(z, y):
    """exp overflows.

    Compute log softmax(z)[y] as z_y - logsumexp(z). The library's logsumexp subtracts the largest
    score first."""
    p = at_labels(z.exp(), y) / z.exp().sum(1)
    return -p.log()[y >= 0].sum() / number_of_labels(y)


@mistakes.add
def sum_overflows(z, y):
    """exp overflows.

    Compute log softmax(z)[y] as z_y - logsumexp(z). The library's logsumexp subtracts the largest
    score first."""
    z = to_fp32(z)
    return mean_over_labels(z.exp().sum(1).log() - at_labels(z, y), y)


@mistakes.add
def word_0_is_no_label(z, y):
    """Word 0 is taken for a missing label.

    0 is a word like all others. Only negative labels are left out, so keep y >= 0."""
    return distill.mlm_loss(z, torch.where(y > 0, y, -100))


@mistakes.add
def nothing_to_guess(z, y):
    """The loss is NaN where there is nothing to guess.

    Without any label the loss is 0: divide by at least 1."""
    return surprise(z, y)[y >= 0].mean()


@mistakes.add
def all_positions_counted(z, y):
    """Positions without a label are counted in N.

    Divide by the number of labels, not by the number of positions."""
    return (surprise(z, y) * (y >= 0)).mean()


@mistakes.add
def only_clamped(z, y):
    """The labels are clamped, but their positions are not left out.

    After clamping -100 to 0 those positions must still be taken out of the sum and out of N."""
    return surprise(z, y).mean()


@mistakes.add
def summed(z, y):
    """The loss is the sum instead of the mean.

    Divide by N, the number of labels."""
    return distill.mlm_loss(z, y) * (y >= 0).sum()


@mistakes.add
def mean_over_words(z, y):
    """The loss is a mean over the vocabulary, too.

    Of each row only the label's word is read, so a mean over V makes the loss V times smaller. The
    KD term of the paper's released code has this mistake."""
    return distill.mlm_loss(z, y) / z.shape[1]


@mistakes.add
def softmax_over_positions(z, y):
    """The softmax is taken over the positions.

    A distribution is over the words: use dim=1."""
    return mean_over_labels(surprise(z, y, dim=0), y)


@mistakes.add
def sign(z, y):
    """The sign is missing.

    The logarithm of a probability is negative, and the surprise is minus that."""
    return -distill.mlm_loss(z, y)


@mistakes.add
def no_logarithm(z, y):
    """The logarithm is missing.

    The surprise is -log p, not -p."""
    return mean_over_labels(-at_labels(to_fp32(z).softmax(1), y), y)


@mistakes.add
def bits(z, y):
    """The loss is in bits.

    Losses are in nats: use the natural logarithm."""
    return distill.mlm_loss(z, y) / math.log(2)


NO_WORD = "-100 is no word: take positions without a label out before you index"

MLM = Exercise(
    file="4_mlm.py", function="mlm_loss", right=distill.mlm_loss, cases=cases, mistakes=mistakes,
    install=swap(distill, "mlm_loss"), learns=(0,), tests=(
        "test_distill.py::test_mlm_loss_is_the_mean_surprise_at_the_labelled_positions",
        "test_distill.py::test_mlm_loss_is_torchs_cross_entropy",
        "test_distill.py::test_the_gradient_is_the_prediction_less_the_truth",
        "test_distill.py::test_two_tokens_by_hand",
        "test_distill.py::test_uniform_logits_give_log_V",
        "test_distill.py::test_a_position_without_a_label_does_not_count",
        "test_distill.py::test_huge_logits_do_not_overflow",
        "test_distill.py::test_bf16_logits_are_summed_in_fp32"),
    hints={"out of bounds": NO_WORD, "out of range": NO_WORD})
