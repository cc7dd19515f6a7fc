"""Exercise 6. Learning from the teacher's layers. (35 minutes)

Read first: Jiao et al. 2020 (TinyBERT), section 3.1 and equations 7 to 9. Read `tinybert_loss`
and `tinybert` in distill.py only after you have tried.

A student of L_S layers imitates a teacher of L_T = n L_S layers. The student's layer m learns from
the teacher's layer g(m) = m L_T / L_S. Layers are counted from 1, so the last learns from the last.
Layer 0 is the output of the embeddings, and it learns from the teacher's layer 0. With MSE, the
mean of the squared differences, the loss is

    L = sum_{m=0..L_S} MSE(H_m, H'_{g(m)}) + sum_{m=1..L_S} MSE(S_m, S'_{g(m)})

H are hidden states; the student's are already projected to the teacher's width h'. S are the
attention scores before the softmax. You get lists of all layers:

    student_hidden   L_S + 1 tensors (B, T, h')     number 0 is the embeddings' output
    teacher_hidden   L_T + 1 tensors (B, T, h')     in the same way
    student_scores   L_S tensors (B, A, T, T)       number 0 holds the scores of layer 1 (!)
    teacher_scores   L_T tensors (B, A, T, T)       in the same way

Return a scalar. Turn bf16 into fp32 before you compute, but leave float64 as it is.

Check by hand: with L_S = 1 and L_T = 2 the student learns from hidden states 0 and 2, and from the
scores of layer 2. Then run: python exercises/check.py 6
"""
import torch  # noqa: F401


def tinybert_loss(student_hidden, teacher_hidden, student_scores, teacher_scores):
    """Lists of (B, T, h') and of (B, A, T, T) -> scalar."""
    raise NotImplementedError("write tinybert_loss in exercises/6_tinybert.py")
