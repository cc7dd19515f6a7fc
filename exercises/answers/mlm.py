"""Exercise 4: the loss of masked language modelling, of logits (N, V) and labels (N,)."""
import math
from functools import partial

import torch
from torch.nn import functional

import distill
from distill import to_fp32

from .exercise import Case, Exercise, Mistakes, draw, swap


def cases():
    y = torch.tensor([1, -100, 4, 0, -100, 2, 3])
    odds_of_3_to_1 = torch.tensor([[math.log(3), 0.0]])
    large = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
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
# What the loss is made of: `loss` with its defaults is right

# The surprise at each position: z (N, V), y (N,) -> (N,). Where there is no label, it is that of
# word 0


def at_labels(values, y):
    return values.gather(1, y.clamp(min=0)[:, None]).squeeze(1)


def one_hot(z, y):
    return torch.zeros_like(z).scatter(1, y.clamp(min=0)[:, None], 1)


def surprise(z, y):
    return -at_labels(z.log_softmax(1), y)


def over_positions(z, y):
    return -at_labels(z.log_softmax(0), y)


def probability(z, y):
    return -at_labels(z.softmax(1), y)


def score(z, y):
    return -at_labels(z, y)


def largest_not_added(z, y):
    return z.logsumexp(1) - z.amax(1) - at_labels(z, y)


def sum_over_all_scores(z, y):
    return z.logsumexp((0, 1)) - at_labels(z, y)


def softmax_twice(z, y):
    return surprise(z.softmax(1), y)


def squares(z, y):
    return (z.softmax(1) - one_hot(z, y)).square().sum(1)


def binary(z, y):
    return functional.binary_cross_entropy_with_logits(z, one_hot(z, y), reduction="none").mean(1)


def smoothed(z, y, share=0.1):
    return (1 - share) * surprise(z, y) - share * z.log_softmax(1).mean(1)


def wrong_guess(z, y):
    return (z.argmax(1) != y).to(z.dtype)


def overflowing_logarithm(z, y):
    return -(at_labels(z.exp(), y) / z.exp().sum(1)).log()


def overflowing_sum(z, y):
    return z.exp().sum(1).log() - at_labels(z, y)


def log_of_a_sum(z, y, epsilon):
    return -(at_labels(z.softmax(1), y) + epsilon).log()


def cut_off(z, y, most):
    return surprise(z.clamp(-most, most), y)


# What is made of the surprises (N,)


def number_of_labels(y):
    """At least 1, to divide by it."""
    return (y >= 0).sum().clamp(min=1)


def mean_over_labels(values, y):
    return values[y >= 0].sum() / number_of_labels(y)


def no_guard(values, y):
    return values[y >= 0].mean()


def all_counted(values, y):
    return (values * (y >= 0)).mean()


def only_clamped(values, y):
    return values.mean()


def word_0_left_out(values, y):
    return values[y > 0].sum() / (y > 0).sum().clamp(min=1)


def total(values, y):
    return values[y >= 0].sum()


def one_more(values, y):
    return values[y >= 0].sum() / ((y >= 0).sum() + 1)


def median(values, y):
    return values[y >= 0].median() if (y >= 0).any() else 0 * values.sum()


# And what is made of the mean, with V


def unchanged(value, V):
    return value


def divided_by_V(value, V):
    return value / V


def negative(value, V):
    return -value


def in_bits(value, V):
    return value / math.log(2)


def perplexity(value, V):
    return value.exp()


def loss(z, y, of_position=surprise, reduce=mean_over_labels, change=unchanged):
    """An mlm_loss made of these parts."""
    return change(reduce(of_position(to_fp32(z), y), y), z.shape[1])


# --------------------------------------------------------------------------------------------------
# Known mistakes: a wrong choice in one part, or in two of them

LOGSUMEXP = ("Compute log softmax(z)[y] as z_y - logsumexp(z). The library's logsumexp subtracts "
             "the largest score first.")
HIDES = ("That hides the overflow, and changes the loss where it matters most: at words that the "
         "model holds for impossible. Use logsumexp.")
IS_SURPRISE = "The surprise is -log softmax(z)[y], at the label's word."
PARTS = {
    "of_position": [
        (over_positions, "The softmax is taken over the positions.",
         "A distribution is over the words: use dim=1."),
        (probability, "The logarithm is missing.", "The surprise is -log p, not -p."),
        (score, "The scores are taken for logarithms of probabilities.",
         "log softmax(z)[y] is z_y less logsumexp(z)."),
        (largest_not_added, "The largest score is subtracted before exp, and not added again.",
         "log sum_v exp z_v = m + log sum_v exp(z_v - m). torch's logsumexp does both."),
        (sum_over_all_scores, "The logsumexp is taken over the positions, too.",
         "Each position has a sum of its own, over its words: use dim=1."),
        (softmax_twice, "The softmax is taken twice.",
         "torch's cross_entropy and log_softmax take scores, not probabilities."),
        (squares, "The loss is the squared difference from a one-hot vector.", IS_SURPRISE),
        (binary, "The loss is a binary cross-entropy for each word.",
         "The words share one softmax: log softmax(z)[y] = z_y - logsumexp(z)."),
        (smoothed, "The labels are smoothed.", IS_SURPRISE),
        (wrong_guess, "The answer is the share of the wrong guesses.",
         "The loss is a surprise, -log p, and has a gradient."),
        (overflowing_sum, "exp overflows, or the logarithm of 0 is taken.", LOGSUMEXP),
        (overflowing_logarithm, "exp overflows, and inf is divided by inf.", LOGSUMEXP),
        *((partial(log_of_a_sum, epsilon=epsilon),
           "A small number is added to the softmax before the logarithm.", HIDES)
          for epsilon in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)),
        *((partial(cut_off, most=most), f"The scores are cut off at {most}.",
           "That hides the overflow, and a score beyond gets no gradient. Use logsumexp.")
          for most in (10, 20, 30, 50, 80, 88, 100))],
    "reduce": [
        (word_0_left_out, "Word 0 is taken for a missing label.",
         "0 is a word like all others. Only negative labels are left out, so keep y >= 0."),
        (no_guard, "The loss is NaN where there is nothing to guess.",
         "Without any label the loss is 0: divide by at least 1."),
        (all_counted, "Positions without a label are counted in N.",
         "Divide by the number of labels, not by the number of positions."),
        (only_clamped, "The labels are clamped, but their positions are not left out.",
         "After clamping -100 to 0 those positions must still be taken out of the sum and out of "
         "N."),
        (total, "The loss is the sum instead of the mean.", "Divide by N, the number of labels."),
        (one_more, "The sum is divided by N + 1.",
         "Divide by N, the number of labels. Where it is 0 the loss is 0: clamp(min=1)."),
        (median, "The loss is the median instead of the mean.",
         "Divide the sum by N, the number of labels.")],
    "change": [
        (divided_by_V, "The loss is a mean over the vocabulary, too.",
         "Of each row only the label's word is read, so a mean over V makes the loss V times "
         "smaller. The KD term of the paper's released code has this mistake."),
        (negative, "The sign is missing.",
         "The logarithm of a probability is negative, and the surprise is minus that."),
        (in_bits, "The loss is in bits.", "Losses are in nats: use the natural logarithm."),
        (perplexity, "The answer is the perplexity.",
         "exp of the loss is the perplexity; the loss is the mean surprise itself.")]}

mistakes = Mistakes()
pairs = mistakes.add_parts(loss, PARTS)


@mistakes.add
def softmax_over_labelled_positions(z, y):
    """The softmax is taken over the labelled positions.

    A distribution is over the words: use dim=1."""
    return loss(z[y >= 0], y[y >= 0], of_position=over_positions)


@mistakes.add
def sum_over_labelled_scores(z, y):
    """The logsumexp is taken over the labelled positions, too.

    Each position has a sum of its own, over its words: use dim=1."""
    return loss(z[y >= 0], y[y >= 0], of_position=sum_over_all_scores)


@mistakes.add
def every_label_at_every_position(z, y):
    """Each label is looked up at every position.

    Position n has the label y_n alone: z[range(N), y], or gather."""
    z, y = to_fp32(z)[y >= 0], y[y >= 0]
    return (z.logsumexp(1) - z[:, y]).mean() if len(y) else 0 * z.sum()


NO_WORD = "-100 is no word: take positions without a label out before you index"

MLM = Exercise(
    file="4_mlm.py", function="mlm_loss", right=distill.mlm_loss, cases=cases, mistakes=mistakes,
    pairs=pairs, install=swap(distill, "mlm_loss"), learns=(0,), tests=(
        "test_distill.py::test_mlm_loss_is_the_mean_surprise_at_the_labelled_positions",
        "test_distill.py::test_mlm_loss_is_torchs_cross_entropy",
        "test_distill.py::test_the_gradient_is_the_prediction_less_the_truth",
        "test_distill.py::test_two_tokens_by_hand",
        "test_distill.py::test_uniform_logits_give_log_V",
        "test_distill.py::test_a_position_without_a_label_does_not_count",
        "test_distill.py::test_huge_logits_do_not_overflow",
        "test_distill.py::test_bf16_logits_are_summed_in_fp32"),
    hints={"out of bounds": NO_WORD, "out of range": NO_WORD})
