"""Exercise 5: distillation with a temperature, of the logits (N, V) of student and teacher."""
import math
from typing import Callable, NamedTuple

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, Mistake, draw, swap, wrong_parts


def cases():
    odds_of_3_to_1 = torch.tensor([[math.log(3), 0.0]])
    bf16 = draw(5, 4, 9).bfloat16(), draw(6, 4, 9).bfloat16()
    large = torch.tensor([[300.0, -300.0, 0.0]] * 2), torch.tensor([[0.0, 1.0, 300.0]] * 2)
    return [Case("temperature 1", (draw(1, 7, 5), draw(2, 7, 5), 1.0), {"N": 7, "V": 5}),
            Case("no temperature is given", (draw(9, 3, 2), odds_of_3_to_1.double().repeat(3, 1)),
                 {"N": 3, "V": 2}),
            Case("batch of one", (torch.zeros(1, 2), odds_of_3_to_1, 1.0), {"N": 1, "V": 2}),
            Case("temperature 2", (2 * draw(3, 3, 11), draw(4, 3, 11), 2.0), {"N": 3, "V": 11}),
            Case("scores in bf16, temperature 0.5", (*bf16, 0.5), {"N": 4, "V": 9}),
            Case("scores of 300", (*large, 1.0), {"N": 2, "V": 3}),
            Case("temperature 4", (draw(7, 6, 4), draw(8, 6, 4), 4.0), {"N": 6, "V": 4})]


# --------------------------------------------------------------------------------------------------
# What the loss is made of

# The two softened distributions, as logarithms of the probabilities: (teacher's, student's) (N, V)


def soften_both(z_T, z_S, t):
    return (z_T / t).log_softmax(1), (z_S / t).log_softmax(1)


def soften_none(z_T, z_S, t):
    return z_T.log_softmax(1), z_S.log_softmax(1)


# How one compares them: logarithms (N, V) of the teacher's and the student's -> (N,)


def cross_entropy(log_P, log_Q):
    return -(log_P.exp() * log_Q).sum(1)


def kl(log_P, log_Q):
    return (log_P.exp() * (log_P - log_Q)).sum(1)


def hard_labels(log_P, log_Q):
    return -log_Q.gather(1, log_P.argmax(1)[:, None]).squeeze(1)


def mse_of_probabilities(log_P, log_Q):
    return (log_P.exp() - log_Q.exp()).square().mean(1)


# The factor, and what is made of the (N,) numbers


def square(t):
    return t ** 2


def no_factor(t):
    return 1


def mean(values, V):
    return values.mean()


def total(values, V):
    return values.sum()


def mean_over_words(values, V):
    return values.mean() / V


class Parts(NamedTuple):
    """What the loss is made of. With these parts it is right."""
    soften: Callable = soften_both
    compare: Callable = cross_entropy
    factor: Callable = square
    reduce: Callable = mean


def loss(z_S, z_T, t=1.0, parts=Parts()):
    log_P, log_Q = parts.soften(to_fp32(z_T), to_fp32(z_S), t)
    return parts.factor(t) * parts.reduce(parts.compare(log_P, log_Q), z_S.shape[1])


# --------------------------------------------------------------------------------------------------
# Known mistakes

BOTH_SCORES = "Divide the scores of both by t."
BEFORE = ("log_softmax(z) / t is the logarithm of no distribution, since its probabilities do not "
          "sum to 1. Divide the scores by t first: log_softmax(z / t).")
SQUARES_TEACH_LITTLE = ("The loss is the cross-entropy of the two distributions. The gradient of a "
                        "squared difference is tiny where the student is sure of a wrong word, and "
                        "that of the cross-entropy is not.")
ALL_WORDS = ("All of the teacher's probabilities count, not its favourite word alone: the others "
             "are what a teacher knows more than a label.")
NO_ENTROPY = ("The number is too small by t^2 times the teacher's entropy, which torch's kl_div "
              "subtracts and this loss does not. No weight of the student changes the entropy, so "
              "it has no gradient.")
OVER_N = "Take the sum over V and the mean over N only."
GRADIENTS_SHRINK = ("Gradients shrink with 1/t^2, so multiply by t^2 (Hinton et al. 2015, end of "
                    "section 2).")
ITS_OWN_MEAN = ("That mean is over positions and words, and kl_div subtracts the teacher's "
                "entropy. Write the sum over V and the mean over N.")
NOT_IGNORED = "Divide both scores by t before the softmax, and multiply the loss by t^2."
ANOTHER_LOSS = "That is a loss, too (Ba and Caruana 2014), but not this one."
HIDES = ("That hides the overflow, and changes the loss where it matters most: at words that the "
         "student holds for impossible. Use log_softmax.")
ROWS = [
    (dict(reduce=mean_over_words), "The loss is a mean over the vocabulary, too.",
     f"{OVER_N} The paper's released code averages over both (kd_released_loss in distill.py). "
     "That is 1/V of the loss, and little more than MLM is left."),
    (dict(reduce=mean_over_words, factor=no_factor),
     "The loss is a mean over the vocabulary, too, and the factor t^2 is missing.",
     f"{OVER_N} {GRADIENTS_SHRINK}"),
    (dict(reduce=total), "The loss is the sum over the positions.",
     "Take the mean over the N positions."),
    (dict(reduce=lambda values, V: -values.mean()), "The sign is missing.",
     "The logarithm of a probability is negative, and the loss is minus that."),
    (dict(factor=no_factor), "The factor t^2 is missing.", GRADIENTS_SHRINK),
    (dict(factor=lambda t: t), "The factor is t instead of t^2.",
     "Each of the two softmaxes brings a 1/t, so the factor is t squared."),
    (dict(factor=lambda t: 1 / t ** 2), "The loss is divided by t^2 instead of multiplied.",
     GRADIENTS_SHRINK),
    (dict(soften=lambda z_T, z_S, t: ((z_T / t).log_softmax(1), z_S.log_softmax(1))),
     "The temperature softens the teacher only.", BOTH_SCORES),
    (dict(soften=lambda z_T, z_S, t: (z_T.log_softmax(1), (z_S / t).log_softmax(1))),
     "The temperature softens the student only.", BOTH_SCORES),
    (dict(soften=soften_none), "Nothing is divided by the temperature.",
     "Divide both scores by t before the softmax, besides the factor t^2."),
    (dict(soften=soften_none, factor=no_factor), "The temperature is ignored.", NOT_IGNORED),
    (dict(soften=lambda z_T, z_S, t: soften_both(z_T, z_S, 1 / t)),
     "The scores are multiplied by the temperature.",
     "A distribution is softened when its scores are divided by t."),
    (dict(soften=lambda z_T, z_S, t: ((z_T / t).log_softmax(1), z_S.log_softmax(1) / t)),
     "The student's temperature is applied after log_softmax.", BEFORE),
    (dict(soften=lambda z_T, z_S, t: (z_T.log_softmax(1) / t, z_S.log_softmax(1) / t)),
     "The temperature is applied after log_softmax.", BEFORE),
    (dict(soften=lambda z_T, z_S, t: ((z_T / t).log_softmax(0), (z_S / t).log_softmax(0))),
     "The softmax is taken over the positions.", "A distribution is over the words: use dim=1."),
    (dict(compare=kl), "The loss is KL instead of cross-entropy.", NO_ENTROPY),
    (dict(compare=kl, factor=no_factor),
     "The loss is KL instead of cross-entropy, and the factor t^2 is missing.",
     f"{NO_ENTROPY} {GRADIENTS_SHRINK}"),
    (dict(compare=kl, reduce=total),
     "The loss is KL instead of cross-entropy, and the sum over the positions.",
     f"{NO_ENTROPY} Take the mean over the N positions."),
    (dict(compare=kl, reduce=mean_over_words), "The loss is torch's kl_div with its default mean.",
     ITS_OWN_MEAN),
    (dict(compare=kl, reduce=mean_over_words, factor=no_factor),
     "The loss is torch's kl_div with its default mean, and the factor t^2 is missing.",
     f"{ITS_OWN_MEAN} {GRADIENTS_SHRINK}"),
    (dict(compare=lambda log_P, log_Q: cross_entropy(log_Q, log_P)),
     "Student and teacher are exchanged.",
     "The teacher gives the probabilities and the student the logarithm. The other way round the "
     "student could ignore words."),
    (dict(compare=lambda log_P, log_Q: kl(log_Q, log_P)),
     "The loss is KL, with student and teacher exchanged.",
     "The teacher gives the probabilities and the student the logarithm, and the teacher's entropy "
     "is not subtracted. torch's kl_div takes the student's logarithms first."),
    (dict(compare=hard_labels), "The teacher's favourite word (argmax) is taken for a label.",
     ALL_WORDS),
    (dict(compare=hard_labels, soften=soften_none, factor=no_factor),
     "The teacher's favourite word (argmax) is taken for a label, and the temperature is ignored.",
     f"{ALL_WORDS} {NOT_IGNORED}"),
    (dict(compare=mse_of_probabilities), "The loss is the MSE of the probabilities.",
     SQUARES_TEACH_LITTLE),
    (dict(compare=mse_of_probabilities, factor=no_factor),
     "The loss is the MSE of the probabilities, and the factor t^2 is missing.",
     f"{SQUARES_TEACH_LITTLE} {GRADIENTS_SHRINK}"),
    (dict(compare=lambda log_P, log_Q: cross_entropy(log_P, log_Q.exp().log_softmax(1))),
     "The student goes through the softmax twice.",
     "torch's cross_entropy takes scores, and applies the softmax itself."),
    (dict(compare=lambda log_P, log_Q: -(log_P * log_Q).sum(1)),
     "The teacher's logarithms stand where its probabilities should.",
     "Only the student's side has the logarithm: softmax for the teacher, log_softmax for the "
     "student."),
    (dict(compare=lambda log_P, log_Q: -(log_P + log_Q).exp().sum(1)),
     "The student's logarithm is missing.", "The loss is -P log Q: log_softmax for the student."),
    (dict(compare=lambda log_P, log_Q: (log_P.exp() * (log_P - log_Q.exp())).sum(1)),
     "kl_div gets the student's probabilities.",
     "torch's kl_div wants the student's logarithms as its first argument: log_softmax."),
    (dict(compare=lambda log_P, log_Q: -(log_P.exp() * log_Q.exp().log()).sum(1)),
     "The logarithm of the softmax overflows.",
     "A softmax may be 0, and then its logarithm is -inf. Use log_softmax."),
    *((dict(compare=lambda log_P, log_Q, epsilon=epsilon:
            -(log_P.exp() * (log_Q.exp() + epsilon).log()).sum(1)),
       "A small number is added to the softmax before the logarithm.", HIDES)
      for epsilon in (1e-6, 1e-8, 1e-9, 1e-10, 1e-12))]


def squared_differences(z_S, z_T, t=1.0):
    return (to_fp32(z_S) - to_fp32(z_T)).square().mean()


def softened_differences(z_S, z_T, t=1.0):
    return squared_differences(z_S, z_T) / t ** 2


def teacher_without_a_softmax(z_S, z_T, t=1.0):
    return t ** 2 * -(to_fp32(z_T) / t * (to_fp32(z_S) / t).log_softmax(1)).sum(1).mean()


mistakes = [
    *wrong_parts(loss, Parts(), ROWS),
    Mistake("The loss compares the logits by their squared differences.", squared_differences,
            ANOTHER_LOSS),
    Mistake("The loss compares the softened logits by their squared differences.",
            softened_differences, ANOTHER_LOSS),
    Mistake("The teacher's scores stand where its probabilities should.", teacher_without_a_softmax,
            "Take the softmax of z_T / t. torch's cross_entropy wants probabilities as its second "
            "argument.")]

KD = Exercise(
    file="5_kd.py", function="kd_loss", right=distill.kd_loss, cases=cases, mistakes=mistakes,
    install=swap(distill, "kd_loss"), learns=(0,), tests=(
        "test_distill.py::test_kd_is_the_cross_entropy_with_the_teacher_times_t_squared",
        "test_distill.py::test_kd_of_two_words_by_hand",
        "test_distill.py::"
        "test_kd_is_at_least_the_teachers_entropy_and_that_where_they_agree"))
