"""Exercise 5. Learning from all the teacher's opinions. (25 minutes)

Read first: Hinton, Vinyals and Dean 2015, section 2; exercise 4.

A label names one word, but a teacher gives each word a probability. The student's loss is its
cross-entropy with the teacher's distribution. Both distributions are softened by a temperature t.
The loss is summed over the vocabulary and averaged over the N positions:

    L = t^2 1/N sum_n sum_v -softmax(z_T / t)_nv log softmax(z_S / t)_nv

Without the factor t^2 the gradient would shrink with 1/t^2. The loss is least where student and
teacher agree. Even there it is not 0, but t^2 times the teacher's entropy.

Shapes: student_logits (N, V), teacher_logits (N, V) -> a scalar. Turn bf16 into fp32 before you
compute, but leave float64 as it is.

Check by hand: if the teacher's odds are 3 : 1, the student's 1 : 1, and t = 1, then the loss is
log 2 = 0.693. Then run: python exercises/check.py 5
To see it learn, with t = 2 and beside the MLM loss, run: python exercises/check.py 5 --train
"""
import torch  # noqa: F401


def kd_loss(student_logits, teacher_logits, temperature=1.0):
    """logits (N, V), (N, V) -> scalar, in nats."""
    raise NotImplementedError("write kd_loss in exercises/5_kd.py")
