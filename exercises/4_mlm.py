"""Exercise 4. How surprised is the model?                                                                     (25 minutes)

Read first: exercise 3; the docstring at the top of distill.py.

At each of N masked positions the model gives a score z_nv to each of V words. Its loss is the mean surprise at the words that stood there:

    L = 1/N sum_n -log softmax(z_n)[y_n]          log softmax(z)[y] = z_y - log sum_v exp z_v

A position whose label y_n is -100 has no word to guess: it counts neither in the sum nor in N. Without any label the loss is 0.
Scores may be as large as 10,000, where exp overflows: torch has logsumexp. They may be bf16: compute in fp32 (float64 stays).

Shapes: logits (N, V), labels (N,) -> a scalar. Write it with sums and gathers, not with torch's cross_entropy (the tests compare with that).

Check by hand: odds of 3 : 1 for the right one of two words cost log(4/3) = 0.288. Then: python exercises/check.py 4
"""
import torch  # noqa: F401


def mlm_loss(logits, labels):
    """logits (N, V), labels (N,) -> scalar, in nats."""
    raise NotImplementedError("write mlm_loss in exercises/4_mlm.py")
