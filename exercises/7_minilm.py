"""Exercise 7. Learning which positions belong together.                                                       (40 minutes)

Read first: Wang et al. 2021 (MiniLM v2), section 3 and equations 5 to 8; `split` and `relation` in distill.py only after you have tried.

Student and teacher may differ in width and in heads. What both have is T positions, and how these relate: take the queries X of one layer (all heads joined,
width h), cut each position's vector into R pieces of width d = h / R, the relation heads, and compare all positions within each piece:

    A_Q = softmax(X X^T / sqrt(d))       (B, R, T, T), each row a distribution over positions

The same of the keys and of the values. The student's d is its own h / R, the teacher's its own h' / R. The loss is the KL divergence from the teacher's rows to the
student's, summed over a row, averaged over sequences, relation heads and positions, and over the three kinds of relation:

    L = 1/3 sum_{X in Q, K, V}  1/(B R T) sum_brt  KL(A'_brt || A_brt)         KL(P || Q) = sum_j P_j (log P_j - log Q_j)

Shapes: student_qkv three tensors (B, T, h), teacher_qkv three tensors (B, T, h') -> a scalar, in fp32 where they are bf16
(float64 stays as it is).
Take care with the cut: position t keeps its own h numbers. (B, T, h) -> (B, T, R, d) -> (B, R, T, d).

Scores may be large: take log_softmax, since the softmax may be 0, and its logarithm is then none.

Check by hand: R = 1, T = 2, h = h' = 1, all three alike, the student (0, 0), the teacher (sqrt(log 3), 0): its first row is (3/4, 1/4), and the loss
1/2 (3/4 log 3/2 + 1/4 log 1/2) = 0.0654. Student equal to teacher gives 0. Then: python exercises/check.py 7
"""
import torch  # noqa: F401


def minilm_loss(student_qkv, teacher_qkv, relation_heads):
    """(q, k, v) of (B, T, h) and of (B, T, h') -> scalar."""
    raise NotImplementedError("write minilm_loss in exercises/7_minilm.py")
