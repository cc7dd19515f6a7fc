"""Exercise 5: distillation with a temperature, of the logits (N, V) of student and teacher."""
import math

import torch

import distill
from distill import to_fp32

from .exercise import Case, Exercise, Mistake, Mistakes, draw, swap


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
# What a loss is made of: `loss` with its defaults is right

# The two softened distributions, as logarithms of the probabilities: (teacher's, student's) (N, V)


def soften_both(z_T, z_S, t):
    return (z_T / t).log_softmax(1), (z_S / t).log_softmax(1)


def soften_teacher(z_T, z_S, t):
    return (z_T / t).log_softmax(1), z_S.log_softmax(1)


def soften_student(z_T, z_S, t):
    return z_T.log_softmax(1), (z_S / t).log_softmax(1)


def soften_none(z_T, z_S, t):
    return z_T.log_softmax(1), z_S.log_softmax(1)


def sharpen_both(z_T, z_S, t):
    return (z_T * t).log_softmax(1), (z_S * t).log_softmax(1)


def student_after_the_softmax(z_T, z_S, t):
    return (z_T / t).log_softmax(1), z_S.log_softmax(1) / t


def student_after_and_teacher_not(z_T, z_S, t):
    return z_T.log_softmax(1), z_S.log_softmax(1) / t


def both_after_the_softmax(z_T, z_S, t):
    return z_T.log_softmax(1) / t, z_S.log_softmax(1) / t


def teachers_probabilities_after(z_T, z_S, t):
    return (z_T.softmax(1) / t).log(), (z_S / t).log_softmax(1)


def probabilities_after_the_softmax(z_T, z_S, t):
    # The teacher's probabilities divided by t, which then no longer sum to 1.
    return (z_T.softmax(1) / t).log(), (z_S.softmax(1) / t).log()


# How one compares them: logarithms (N, V) of the teacher's and the student's -> (N,)


def cross_entropy(log_P, log_Q):
    return -(log_P.exp() * log_Q).sum(1)


def kl(log_P, log_Q):
    return (log_P.exp() * (log_P - log_Q)).sum(1)


def exchanged(log_P, log_Q):
    return cross_entropy(log_Q, log_P)


def exchanged_kl(log_P, log_Q):
    return kl(log_Q, log_P)


def hard_labels(log_P, log_Q):
    return -log_Q.gather(1, log_P.argmax(1)[:, None]).squeeze(1)


def favourite_word(log_P, log_Q):
    return log_P.exp().amax(1) * hard_labels(log_P, log_Q)


def mse_of_probabilities(log_P, log_Q):
    return (log_P.exp() - log_Q.exp()).square().mean(1)


def squares_of_probabilities(log_P, log_Q):
    return (log_P.exp() - log_Q.exp()).square().sum(1)


def mse_of_logarithms(log_P, log_Q):
    return (log_P - log_Q).square().mean(1)


def kl_with_its_own_mean(log_P, log_Q):
    return kl(log_P, log_Q) / log_P.shape[1]


def students_entropy(log_P, log_Q):
    return cross_entropy(log_Q, log_Q)


def entropy_added(log_P, log_Q):
    return cross_entropy(log_P, log_Q) + cross_entropy(log_P, log_P)


def absolute_differences(log_P, log_Q):
    return (log_P.exp() - log_Q.exp()).abs().sum(1)


def jensen_shannon(log_P, log_Q):
    log_M = ((log_P.exp() + log_Q.exp()) / 2).log()
    return (kl(log_P, log_M) + kl(log_Q, log_M)) / 2


def both_directions(log_P, log_Q):
    return (cross_entropy(log_P, log_Q) + cross_entropy(log_Q, log_P)) / 2


def students_softmax_twice(log_P, log_Q):
    return cross_entropy(log_P, log_Q.exp().log_softmax(1))


def teachers_softmax_twice(log_P, log_Q):
    return cross_entropy(log_P.exp().log_softmax(1), log_Q)


def teachers_logarithms(log_P, log_Q):
    return -(log_P * log_Q).sum(1)


def no_logarithm(log_P, log_Q):
    return -(log_P + log_Q).exp().sum(1)


def no_logarithm_in_kl(log_P, log_Q):
    return (log_P.exp() * (log_P - log_Q.exp())).sum(1)


# The factor, and what is made of the (N, V) numbers


def square(t):
    return t ** 2


def once(t):
    return t


def no_factor(t):
    return 1


def inverse_square(t):
    return 1 / t ** 2


def inverse(t):
    return 1 / t


def root(t):
    return math.sqrt(t)


def mean(values, V):
    return values.mean()


def total(values, V):
    return values.sum()


def mean_over_words(values, V):
    return values.mean() / V


def sum_over_positions_mean_over_words(values, V):
    return values.sum() / V


def negative(values, V):
    return -values.mean()


def loss(z_S, z_T, t=1.0, soften=soften_both, compare=cross_entropy, factor=square, reduce=mean):
    """A kd_loss made of these four parts."""
    log_P, log_Q = soften(to_fp32(z_T), to_fp32(z_S), t)
    return factor(t) * reduce(compare(log_P, log_Q), z_S.shape[1])


# --------------------------------------------------------------------------------------------------
# Known mistakes: a wrong choice in one part, or in two of them

BOTH_SCORES = "Divide the scores of both by t."
BEFORE = ("log_softmax(z) / t is the logarithm of no distribution, since its probabilities do not "
          "sum to 1. Divide the scores by t first: log_softmax(z / t).")
NOT_THIS_LOSS = "The loss is the cross-entropy of the two distributions."
SQUARES_TEACH_LITTLE = (f"{NOT_THIS_LOSS} The gradient of a squared difference is tiny where the "
                        "student is sure of a wrong word, and that of the cross-entropy is not.")
ALL_WORDS = ("All of the teacher's probabilities count, not its favourite word alone: the others "
             "are what a teacher knows more than a label.")
NO_ENTROPY = ("The number is too small by t^2 times the teacher's entropy, which torch's kl_div "
              "subtracts and this loss does not. No weight of the student changes the entropy, so "
              "it has no gradient.")

PARTS = {
    "reduce": (
        (mean_over_words, "The loss is a mean over the vocabulary, too.",
         "Take the sum over V and the mean over N only. The paper's released code averages over "
         "both (kd_released_loss in distill.py). That is 1/V of the loss, and little more than MLM "
         "is left."),
        (total, "The loss is the sum over the positions.", "Take the mean over the N positions."),
        (sum_over_positions_mean_over_words, "The loss is divided by V instead of N.",
         "Take the sum over the V words and the mean over the N positions."),
        (negative, "The sign is missing.",
         "The logarithm of a probability is negative, and the loss is minus that.")),
    "compare": (
        (kl, "The loss is KL instead of cross-entropy.", NO_ENTROPY),
        (kl_with_its_own_mean, "The loss is torch's kl_div with its default mean.",
         "That mean is over positions and words, and kl_div subtracts the teacher's entropy. Write "
         "the sum over V and the mean over N."),
        (exchanged, "Student and teacher are exchanged.",
         "The teacher gives the probabilities and the student the logarithm. The other way round "
         "the student could ignore words."),
        (exchanged_kl, "The loss is KL, with student and teacher exchanged.",
         "The teacher gives the probabilities and the student the logarithm, and the teacher's "
         "entropy is not subtracted. torch's kl_div takes the student's logarithms first."),
        (hard_labels, "The teacher's favourite word (argmax) is taken for a label.", ALL_WORDS),
        (favourite_word, "Only the teacher's favourite word is in the sum.", ALL_WORDS),
        (mse_of_probabilities, "The loss is the MSE of the probabilities.",
         SQUARES_TEACH_LITTLE),
        (squares_of_probabilities, "The loss is the squared difference of the probabilities.",
         SQUARES_TEACH_LITTLE),
        (mse_of_logarithms, "The loss is the MSE of the logarithms of the probabilities.",
         f"{NOT_THIS_LOSS} With MSE a word that nobody expects counts as much as a likely one."),
        (absolute_differences, "The loss is the absolute difference of the probabilities.",
         NOT_THIS_LOSS),
        (jensen_shannon, "The loss is the Jensen-Shannon divergence.", NOT_THIS_LOSS),
        (both_directions, "The loss is the mean of both directions.",
         "The teacher gives the probabilities and the student the logarithm, and not the other way "
         "round."),
        (students_entropy, "The loss is the student's own entropy.",
         "The teacher gives the probabilities and the student the logarithm."),
        (entropy_added, "The teacher's entropy is added.", "The loss is the cross-entropy alone."),
        (students_softmax_twice, "The student goes through the softmax twice.",
         "torch's cross_entropy takes scores, and applies the softmax itself."),
        (teachers_softmax_twice, "The teacher goes through the softmax twice.",
         "One softmax of z_T / t gives its probabilities."),
        (teachers_logarithms, "The teacher's logarithms stand where its probabilities should.",
         "Only the student's side has the logarithm: softmax for the teacher, log_softmax for the "
         "student."),
        (no_logarithm, "The student's logarithm is missing.",
         "The loss is -P log Q: log_softmax for the student."),
        (no_logarithm_in_kl, "The student's logarithm is missing.",
         "torch's kl_div wants the student's logarithms as its first argument: log_softmax.")),
    "factor": (
        (no_factor, "The factor t^2 is missing.",
         "Gradients shrink with 1/t^2, so multiply by t^2 (Hinton et al. 2015, end of section 2)."),
        (once, "The factor is t instead of t^2.",
         "Each of the two softmaxes brings a 1/t, so the factor is t squared."),
        (inverse_square, "The loss is divided by t^2 instead of multiplied.",
         "Gradients shrink with 1/t^2, so multiply by t^2 (Hinton et al. 2015, end of section "
         "2)."),
        (inverse, "The loss is divided by t.", "Multiply by t^2."),
        (root, "The factor is the root of t.", "The factor is t^2.")),
    "soften": (
        (soften_teacher, "The temperature softens the teacher only.", BOTH_SCORES),
        (soften_student, "The temperature softens the student only.", BOTH_SCORES),
        (soften_none, "Nothing is divided by the temperature.",
         "Divide both scores by t before the softmax, besides the factor t^2."),
        (sharpen_both, "The scores are multiplied by the temperature.",
         "A distribution is softened when its scores are divided by t."),
        (student_after_the_softmax,
         "The student's temperature is applied after log_softmax.", BEFORE),
        (student_after_and_teacher_not, "The temperature is applied after log_softmax, and to the "
         "student only.", f"{BEFORE} Do the same with the teacher's."),
        (both_after_the_softmax, "The temperature is applied after log_softmax.", BEFORE),
        (teachers_probabilities_after,
         "The teacher's probabilities are divided by the temperature, instead of its scores.",
         "Divide the scores by t, before the softmax: the probabilities then sum to 1."),
        (probabilities_after_the_softmax, "The probabilities are divided by the temperature.",
         "A distribution is softened when its scores are divided by t, before the softmax."))}


def without_temperature(compare):
    """A kd_loss that ignores its temperature."""
    def mistaken(z_S, z_T, t=1.0):
        return loss(z_S, z_T, compare=compare)
    return mistaken


IGNORED = "The temperature is ignored."
NOT_IGNORED = "Divide both scores by t before the softmax, and multiply the loss by t^2."
mistakes = Mistakes()
pairs = [Mistake(f"There are two mistakes. {name} {IGNORED}", without_temperature(compare),
                 f"{advice} {NOT_IGNORED}") for compare, name, advice in PARTS["compare"]]
pairs += mistakes.add_parts(loss, PARTS)
mistakes.append(Mistake(IGNORED, without_temperature(cross_entropy), NOT_IGNORED))


@mistakes.add
def another_default(z_S, z_T, t=2.0):
    """The default temperature is another one.

    The temperature is 1 where none is given."""
    return loss(z_S, z_T, t)


@mistakes.add
def softmax_over_positions(z_S, z_T, t=1.0):
    """The softmax is taken over the positions.

    A distribution is over the words: use dim=1."""
    P, log_Q = (to_fp32(z_T) / t).softmax(0), (to_fp32(z_S) / t).log_softmax(0)
    return t ** 2 * -(P * log_Q).sum(1).mean()


@mistakes.add
def squared_differences(z_S, z_T, t=1.0):
    """The loss compares the logits by their squared differences.

    That is a loss, too (Ba and Caruana 2014), but not this one."""
    return (to_fp32(z_S) - to_fp32(z_T)).square().mean()


@mistakes.add
def softened_differences(z_S, z_T, t=1.0):
    """The loss compares the softened logits by their squared differences.

    That is a loss, too (Ba and Caruana 2014), but not this one."""
    return squared_differences(z_S, z_T) / t ** 2


@mistakes.add
def absolute_differences_of_logits(z_S, z_T, t=1.0):
    """The loss compares the logits by their absolute differences.

    The loss is the cross-entropy of the two distributions."""
    return (to_fp32(z_S) - to_fp32(z_T)).abs().mean()


@mistakes.add
def product_of_logarithms(z_S, z_T, t=1.0):
    """The teacher's logarithms stand where its probabilities should, and the sign is missing.

    Only the student's side has the logarithm: softmax for the teacher, log_softmax for the
    student. The logarithm of a probability is negative, and the loss is minus that."""
    return -loss(z_S, z_T, t, compare=teachers_logarithms)


@mistakes.add
def cosine(z_S, z_T, t=1.0):
    """The loss is 1 less the cosine of the logits.

    The loss is the cross-entropy of the two distributions."""
    return (1 - torch.cosine_similarity(to_fp32(z_S), to_fp32(z_T), dim=1)).mean()


@mistakes.add
def half_of_the_labels(z_S, z_T, t=1.0):
    """The loss is mixed with the cross-entropy with the teacher's favourite word.

    The loss is the cross-entropy with the teacher's distribution alone. The MLM loss stands beside
    it in the strategy, not in this function."""
    hard = loss(z_S, z_T, compare=hard_labels)
    return (loss(z_S, z_T, t) + hard) / 2


@mistakes.add
def teacher_without_a_softmax(z_S, z_T, t=1.0):
    """The teacher's scores stand where its probabilities should.

    Take the softmax of z_T / t. torch's cross_entropy wants probabilities as its second
    argument."""
    return t ** 2 * -(to_fp32(z_T) / t * (to_fp32(z_S) / t).log_softmax(1)).sum(1).mean()


@mistakes.add
def log_overflows(z_S, z_T, t=1.0):
    """The logarithm of the softmax overflows.

    A softmax may be 0, and then its logarithm is -inf. Use log_softmax."""
    P, Q = (to_fp32(z_T) / t).softmax(1), (to_fp32(z_S) / t).softmax(1)
    return t ** 2 * -(P * Q.log()).sum(1).mean()


def log_of_a_sum(epsilon):
    """A small number is added to the softmax before the logarithm."""
    def mistaken(z_S, z_T, t=1.0):
        P, Q = (to_fp32(z_T) / t).softmax(1), (to_fp32(z_S) / t).softmax(1)
        return t ** 2 * -(P * (Q + epsilon).log()).sum(1).mean()
    return mistaken


mistakes += [Mistake("A small number is added to the softmax before the logarithm.",
                     log_of_a_sum(epsilon),
                     "That hides the overflow, and changes the loss where it matters most: at "
                     "words that the student holds for impossible. Use log_softmax.")
             for epsilon in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)]


KD = Exercise(
    file="5_kd.py", function="kd_loss", right=distill.kd_loss, cases=cases, mistakes=mistakes,
    pairs=pairs, install=swap(distill, "kd_loss"), learns=(0,), tests=(
        "test_distill.py::test_kd_is_the_cross_entropy_with_the_teacher_times_t_squared",
        "test_distill.py::test_kd_of_two_words_by_hand",
        "test_distill.py::"
        "test_kd_is_at_least_the_teachers_entropy_and_that_where_they_agree"))
