"""Exercise 5. Learning from all the teacher's opinions.                                                       (25 minutes)

Read first: Hinton, Vinyals and Dean 2015, section 2; exercise 4.

The label names one word; a teacher gives each word a probability. The student's loss is its cross-entropy with the teacher's distribution, both
softened by a temperature t, summed over the vocabulary and averaged over the N positions:

    L = t^2 1/N sum_n sum_v -softmax(z_T / t)_nv log softmax(z_S / t)_nv

t^2, because the gradient of what stands behind it shrinks with 1/t^2. The loss is least where student and teacher agree; there it is t^2 times the
teacher's entropy, not 0.

Shapes: student_logits (N, V), teacher_logits (N, V) -> a scalar. bf16 is computed in fp32; float64 stays as it is.

Check by hand: teacher 3 : 1, student 1 : 1, t = 1 give log 2 = 0.693. Then: python exercises/check.py 5
and, to see it learn with t = 2 and the masked-word loss beside it: python exercises/check.py 5 --train
"""
import torch  # noqa: F401


def kd_loss(student_logits, teacher_logits, temperature=1.0):
    """logits (N, V), (N, V) -> scalar, in nats."""
    raise NotImplementedError("write kd_loss in exercises/5_kd.py")
