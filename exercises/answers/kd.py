"""Exercise 5: distillation with a temperature, of the logits (N, V) of student and teacher."""
import math

import torch
from torch import nn

import distill
from distill import to_fp32

from .exercise import Exercise, Mistakes, draw, swap


def cases():
    odds_of_3_to_1 = torch.tensor([[math.log(3), 0.0]])
    bf16 = draw(5, 4, 9).bfloat16(), draw(6, 4, 9).bfloat16()
    large = torch.tensor([[300.0, -300.0, 0.0]] * 2), torch.tensor([[0.0, 1.0, 300.0]] * 2)
    return [({"N": 7, "V": 5}, (draw(1, 7, 5), draw(2, 7, 5), 1.0)),
            ({"N": 1, "V": 2}, (torch.zeros(1, 2), odds_of_3_to_1)),
            ({"N": 3, "V": 11}, (2 * draw(3, 3, 11), draw(4, 3, 11), 2.0)),
            ({"N": 4, "V": 9}, (*bf16, 0.5)),
            ({"N": 2, "V": 3}, (*large, 1.0)),
            ({"N": 6, "V": 4}, (draw(7, 6, 4), draw(8, 6, 4), 3.0))]


# --------------------------------------------------------------------------------------------------
# Known mistakes


def cross_entropy(z_P, z_Q, dim=1):
    """(N, V), (N, V) -> (N,): sum_v -softmax(z_P)_nv log softmax(z_Q)_nv."""
    return -(to_fp32(z_P).softmax(dim) * to_fp32(z_Q).log_softmax(dim)).sum(1)


mistakes = Mistakes()


@mistakes.add
def mean_over_words(z_S, z_T, t=1.0):
    """The loss is a mean over the vocabulary, too.

    Take the sum over V and the mean over N only. The paper's released code averages over both
    (kd_released_loss in distill.py). That is 1/V of the loss, and little more than MLM is left."""
    return t ** 2 * cross_entropy(z_T / t, z_S / t).mean() / z_S.shape[1]


@mistakes.add
def kl_div_with_its_own_mean(z_S, z_T, t=1.0):
    """The loss is torch's kl_div with its default mean.

    That mean is over positions and words, and kl_div subtracts the teacher's entropy. Write the sum
    over V and the mean over N."""
    log_Q, P = to_fp32(z_S / t).log_softmax(1), to_fp32(z_T / t).softmax(1)
    return t ** 2 * nn.functional.kl_div(log_Q, P, reduction="none").mean()


@mistakes.add
def exchanged(z_S, z_T, t=1.0):
    """Student and teacher are exchanged.

    The teacher gives the probabilities and the student the logarithm. The other way round the
    student could ignore words."""
    return t ** 2 * cross_entropy(z_S / t, z_T / t).mean()


@mistakes.add
def no_square(z_S, z_T, t=1.0):
    """The factor t^2 is missing.

    Gradients shrink with 1/t^2, so multiply by t^2 (Hinton et al. 2015, end of section 2)."""
    return cross_entropy(z_T / t, z_S / t).mean()


@mistakes.add
def not_squared(z_S, z_T, t=1.0):
    """The factor is t instead of t^2.

    Each of the two softmaxes brings a 1/t, so the factor is t squared."""
    return t * cross_entropy(z_T / t, z_S / t).mean()


@mistakes.add
def kl(z_S, z_T, t=1.0):
    """The loss is KL instead of cross-entropy.

    The gradients are equal, but the number is not. Do not subtract the teacher's entropy."""
    entropy = cross_entropy(z_T / t, z_T / t)
    return t ** 2 * (cross_entropy(z_T / t, z_S / t) - entropy).mean()


@mistakes.add
def teacher_only(z_S, z_T, t=1.0):
    """The temperature softens the teacher only.

    Divide the scores of both by t."""
    return t ** 2 * cross_entropy(z_T / t, z_S).mean()


@mistakes.add
def student_only(z_S, z_T, t=1.0):
    """The temperature softens the student only.

    Divide the scores of both by t."""
    return t ** 2 * cross_entropy(z_T, z_S / t).mean()


@mistakes.add
def another_default(z_S, z_T, t=2.0):
    """The default temperature is another one.

    The temperature is 1 where none is given."""
    return distill.kd_loss(z_S, z_T, t)


@mistakes.add
def no_temperature(z_S, z_T, t=1.0):
    """The temperature is ignored.

    Divide both scores by t before the softmax, and multiply the loss by t^2."""
    return cross_entropy(z_T, z_S).mean()


@mistakes.add
def multiplied(z_S, z_T, t=1.0):
    """The scores are multiplied by the temperature.

    A distribution is softened when its scores are divided by t."""
    return t ** 2 * cross_entropy(z_T * t, z_S * t).mean()


@mistakes.add
def softmax_over_positions(z_S, z_T, t=1.0):
    """The softmax is taken over the positions.

    A distribution is over the words: use dim=1."""
    return t ** 2 * cross_entropy(z_T / t, z_S / t, dim=0).mean()


@mistakes.add
def summed(z_S, z_T, t=1.0):
    """The loss is the sum over the positions.

    Take the mean over the N positions."""
    return t ** 2 * cross_entropy(z_T / t, z_S / t).sum()


@mistakes.add
def hard_labels(z_S, z_T, t=1.0):
    """The teacher gives hard labels.

    All of the teacher's probabilities count, not its favourite word alone."""
    favourite = z_T.argmax(1)[:, None]
    return t ** 2 * -to_fp32(z_S / t).log_softmax(1).gather(1, favourite).mean()


@mistakes.add
def squared_differences(z_S, z_T, t=1.0):
    """The loss compares the logits by their squared differences.

    That is a loss, too (Ba and Caruana 2014), but not this one."""
    return (to_fp32(z_S) - to_fp32(z_T)).square().mean()


@mistakes.add
def sign(z_S, z_T, t=1.0):
    """The sign is missing.

    The logarithm of a probability is negative, and the loss is minus that."""
    return -distill.kd_loss(z_S, z_T, t)


@mistakes.add
def log_overflows(z_S, z_T, t=1.0):
    """The logarithm of the softmax overflows.

    A softmax may be 0, and then its logarithm is -inf. Use log_softmax."""
    P, Q = to_fp32(z_T / t).softmax(1), to_fp32(z_S / t).softmax(1)
    return t ** 2 * -(P * Q.log()).sum(1).mean()


KD = Exercise(
    file="5_kd.py", function="kd_loss", right=distill.kd_loss, cases=cases, mistakes=mistakes,
    install=swap(distill, "kd_loss"), learns=(0,), tests=(
        "test_distill.py::test_kd_is_the_cross_entropy_with_the_teacher_times_t_squared",
        "test_distill.py::test_kd_of_two_words_by_hand",
        "test_distill.py::"
        "test_kd_is_at_least_the_teachers_entropy_and_that_where_they_agree"))
