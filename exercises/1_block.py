"""Exercise 1. What does one block of the encoder cost? (20 minutes)

Read first: the assumptions at the top of budget.py, and `Layer` in model.py.

A matrix product (m x k)(k x n) costs 2 m n k floating-point operations (FLOPs). It has m n entries,
and each of them is a sum of k products, which takes k multiplications and k additions. Everything
else is free by convention: softmax, GELU, LayerNorm, biases.

Here a block is a layer of the encoder. In exercise 3, and wherever text is read, a block is a row
of T tokens. The block has these sizes:

    T  tokens in the sequence
    h  hidden size               cut into A heads of d = h / A
    f  feed-forward size         4 h in BERT, but not in every model

You are not told A. Does the cost depend on it?

In the forward pass of one sequence, a block computes these products:

    queries, keys, values        X W, three times      (T, h) @ (h, h) each
    scores                       Q K^T                 in each of A heads (T, d) @ (d, T)
    weighted sum of the values   softmax(S) V          in each of A heads (T, T) @ (T, d)
    attention output                                   (T, h) @ (h, h)
    feed-forward                                       (T, h) @ (h, f), then (T, f) @ (f, h)

Write the sum of their costs.

Check by hand: T = 2, h = 4, f = 6 costs 512 FLOPs. Then run: python exercises/check.py 1
"""


def block_flops(T, h, f):
    """FLOPs of one block's forward pass over one sequence, a whole number."""
    raise NotImplementedError("write block_flops in exercises/1_block.py")
