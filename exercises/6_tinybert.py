"""Exercise 6. Learning from the teacher's layers.                                                             (35 minutes)

Read first: Jiao et al. 2020 (TinyBERT), section 3.1 and equations 7 to 9; `tinybert` in distill.py only after you have tried.

A student of L_S layers imitates a teacher of L_T = n L_S layers. Its layer m learns from the teacher's layer g(m) = m L_T / L_S, counted from 1: the last
learns from the last. Layer 0, the output of the embeddings, learns from the teacher's layer 0. With MSE the mean of squared differences:

    L = sum_{m=0..L_S} MSE(H_m, H'_{g(m)}) + sum_{m=1..L_S} MSE(S_m, S'_{g(m)})

H are hidden states (the student's are already projected to the teacher's width), S the attention scores before the softmax. Given are lists of all layers:

    student_hidden   L_S + 1 tensors (B, T, h'), number 0 the embeddings' output      teacher_hidden   L_T + 1 of them
    student_scores   L_S tensors (B, A, T, T), number 0 those of layer 1 (!)          teacher_scores   L_T of them

Return a scalar, computed in fp32 where the tensors are bf16; float64 stays as it is.

Check by hand: L_S = 1, L_T = 2: hidden layers 0 and 2, scores of layer 2. Then: python exercises/check.py 6
"""
import torch  # noqa: F401


def tinybert_loss(student_hidden, teacher_hidden, student_scores, teacher_scores):
    """Lists of (B, T, h') and of (B, A, T, T) -> scalar."""
    raise NotImplementedError("write tinybert_loss in exercises/6_tinybert.py")
