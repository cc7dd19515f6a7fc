"""Exercise 7. Learning which positions belong together. (40 minutes)

Read first: Wang et al. 2021 (MiniLM v2), section 3 and equations 5 to 8. Read `relation`,
`split`, `relations_loss` and `minilm_loss` in distill.py only after you have tried.

Student and teacher may differ in their width and in their number of heads. Both have the same T
positions, and so the student can learn how these relate. Take the queries X of one layer, all heads
joined, of width h. Cut each position's vector into R pieces of width d = h / R, the relation heads.
Within each piece, compare all positions:

    A_Q = softmax(X X^T / sqrt(d))       (B, R, T, T), each row a distribution over positions

Do the same with the keys and with the values. The student's d is h / R, and the teacher's is
h' / R. The loss is the KL divergence from the teacher's rows to the student's. It is summed over a
row, and averaged over sequences, relation heads and positions, and over the three kinds of
relation:

    L = 1/3 sum_{X in Q, K, V}  1/(B R T) sum_brt  KL(A'_brt || A_brt)

    KL(P || Q) = sum_j P_j (log P_j - log Q_j)

Shapes: student_qkv is three tensors (B, T, h), teacher_qkv is three tensors (B, T, h'), and the
result is a scalar. Turn bf16 into fp32 before you compute, but leave float64 as it is.

Take care with the cut: position t keeps its own h numbers. (B, T, h) -> (B, T, R, d) ->
(B, R, T, d).

Scores may be large. Then the softmax may be 0, and its logarithm is -inf, so use log_softmax.

Check by hand: let R = 1, T = 2, h = h' = 1, and let Q, K and V be alike. The student has (0, 0) and
the teacher (sqrt(log 3), 0). The teacher's first row is (3/4, 1/4), and the loss is
1/2 (3/4 log 3/2 + 1/4 log 1/2) = 0.0654. Where the student equals the teacher it is 0.
Then run: python exercises/check.py 7
"""
import torch  # noqa: F401


def minilm_loss(student_qkv, teacher_qkv, relation_heads):
    """(q, k, v) of (B, T, h) and of (B, T, h') -> scalar."""
    raise NotImplementedError("write minilm_loss in exercises/7_minilm.py")
