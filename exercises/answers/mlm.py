"""Exercise 4: the loss of masked language modelling, of logits (N, V) and labels (N,)."""
import math
from typing import Callable, NamedTuple

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, Mistake, draw, swap, wrong_parts


def cases():
    y = torch.tensor([1, -100, 4, 0, -100, 2, 3])
    odds_of_3_to_1 = torch.tensor([[math.log(3), 0.0]])
    large = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], dtype=torch.float64)
    bf16 = torch.zeros(3, 4096, dtype=torch.bfloat16)
    no_label = torch.tensor([-100, -100, -100])
    return [Case("two of seven positions have no label", (draw(1, 7, 5), y), {"N": 7, "V": 5}),
            Case("batch of one", (odds_of_3_to_1, torch.tensor([0])), {"N": 1, "V": 2}),
            Case("all positions have a label", (3 * draw(2, 7, 11), y.clamp(min=0)),
                 {"N": 7, "V": 11}),
            Case("scores of 10,000", (large, torch.tensor([0, 1])), {"N": 2, "V": 3}),
            Case("no position has a label", (draw(3, 3, 4), no_label), {"N": 3, "V": 4}),
            Case("scores in bf16", (bf16, torch.tensor([0, 1, 2])), {"N": 3, "V": 4096})]


# --------------------------------------------------------------------------------------------------
# What the loss is made of

# The surprise at each position: z (N, V), y (N,) -> (N,). Where there is no label, it is that of
# word 0.


def at_labels(values, y):
    return values.gather(1, y.clamp(min=0)[:, None]).squeeze(1)


def surprise(z, y):
    return -at_labels(z.log_softmax(1), y)


def over_labelled_positions(z, y):
    others = torch.where((y >= 0)[:, None], z, -torch.inf)  # exp makes 0 of them
    return others.logsumexp(0)[y.clamp(min=0)] - at_labels(z, y)


def sum_over_all_scores(z, y):
    return z[y >= 0].logsumexp((0, 1)) - at_labels(z, y)


def squares(z, y):
    one_hot = torch.zeros_like(z).scatter(1, y.clamp(min=0)[:, None], 1)
    return (z.softmax(1) - one_hot).square().sum(1)


# What is made of the surprises (N,)


def mean_over_labels(values, y):
    return values[y >= 0].sum() / (y >= 0).sum().clamp(min=1)


class Parts(NamedTuple):
    """What the loss is made of. With these parts it is right."""
    of_position: Callable = surprise
    reduce: Callable = mean_over_labels
    change: Callable = lambda value, V: value


def loss(z, y, parts=Parts()):
    values = parts.of_position(to_fp32(z), y)
    return parts.change(parts.reduce(values, y), z.shape[1])


# --------------------------------------------------------------------------------------------------
# Known mistakes

LOGSUMEXP = ("Compute log softmax(z)[y] as z_y - logsumexp(z). The library's logsumexp subtracts "
             "the largest score first.")
OVER_WORDS = "A distribution is over the words: use dim=1."
ROWS = [
    (dict(of_position=lambda z, y: -at_labels(z.log_softmax(0), y)),
     "The softmax is taken over the positions.", OVER_WORDS),
    (dict(of_position=over_labelled_positions),
     "The softmax is taken over the labelled positions.", OVER_WORDS),
    (dict(of_position=lambda z, y: -at_labels(z.softmax(1), y)), "The logarithm is missing.",
     "The surprise is -log p, not -p."),
    (dict(of_position=lambda z, y: -at_labels(z, y)),
     "The scores are taken for logarithms of probabilities.",
     "log softmax(z)[y] is z_y less logsumexp(z)."),
    (dict(of_position=lambda z, y: z.logsumexp(1) - z.amax(1) - at_labels(z, y)),
     "The largest score is subtracted before exp, and not added again.",
     "log sum_v exp z_v = m + log sum_v exp(z_v - m). torch's logsumexp does both."),
    (dict(of_position=lambda z, y: surprise(z.softmax(1), y)), "The softmax is taken twice.",
     "torch's cross_entropy and log_softmax take scores, not probabilities."),
    (dict(of_position=squares), "The loss is the squared difference from a one-hot vector.",
     "The surprise is -log softmax(z)[y], at the label's word."),
    (dict(of_position=lambda z, y: z.exp().sum(1).log() - at_labels(z, y)),
     "exp overflows, or the logarithm of 0 is taken.", LOGSUMEXP),
    (dict(of_position=lambda z, y: -(at_labels(z.exp(), y) / z.exp().sum(1)).log()),
     "exp overflows, and inf is divided by inf.", LOGSUMEXP),
    (dict(of_position=sum_over_all_scores), "The sum of exp is one over the positions, too.",
     "Each position has a sum of its own, over its words: use dim=1."),
    *((dict(of_position=lambda z, y, small=small: -(at_labels(z.softmax(1), y) + small).log()),
       "A small number is added to the softmax before the logarithm.",
       "That hides the overflow, and changes the loss where it matters most: at words that the "
       "model holds for impossible. Use logsumexp.") for small in (1e-6, 1e-8, 1e-9, 1e-10, 1e-12)),
    (dict(reduce=lambda values, y: values[y > 0].sum() / (y > 0).sum().clamp(min=1)),
     "Word 0 is taken for a missing label.",
     "0 is a word like all others. Only negative labels are left out, so keep y >= 0."),
    (dict(reduce=lambda values, y: values[y >= 0].mean()),
     "The loss is NaN where there is nothing to guess.",
     "Without any label the loss is 0: divide by at least 1."),
    (dict(reduce=lambda values, y: (values * (y >= 0)).mean()),
     "Positions without a label are counted in N.",
     "Divide by the number of labels, not by the number of positions."),
    (dict(reduce=lambda values, y: values.mean()),
     "The labels are clamped, but their positions are not left out.",
     "After clamping -100 to 0 those positions must still be taken out of the sum and out of N."),
    (dict(reduce=lambda values, y: values[y >= 0].sum()),
     "The loss is the sum instead of the mean.", "Divide by N, the number of labels."),
    (dict(change=lambda value, V: value / V), "The loss is a mean over the vocabulary, too.",
     "Of each row only the label's word is read, so a mean over V makes the loss V times smaller. "
     "The KD term of the paper's released code has this mistake."),
    (dict(change=lambda value, V: -value), "The sign is missing.",
     "The logarithm of a probability is negative, and the surprise is minus that."),
    (dict(change=lambda value, V: value / math.log(2)), "The loss is in bits.",
     "Losses are in nats: use the natural logarithm."),
    (dict(change=lambda value, V: value.exp()), "The answer is the perplexity.",
     "exp of the loss is the perplexity; the loss is the mean surprise itself.")]


def every_label_at_every_position(z, y):
    z, y = to_fp32(z)[y >= 0], y[y >= 0]
    return (z.logsumexp(1) - z[:, y]).mean() if len(y) else 0 * z.sum()


def first_positions(z, y):
    y = y[y >= 0]
    return surprise(to_fp32(z)[:len(y)], y).mean()


NO_WORD = "-100 is no word: take positions without a label out before you index"
mistakes = [*wrong_parts(loss, Parts(), ROWS),
            Mistake("Each label is looked up at every position.", every_label_at_every_position,
                    "Position n has the label y_n alone: z[range(N), y], or gather."),
            Mistake("The labels are those of the labelled positions, and the scores those of the "
                    "first ones.", first_positions,
                    "Take the same positions out of both: z[y >= 0] and y[y >= 0].")]

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
