"""Exercise 4. How surprised is the model? (25 minutes)

Read first: exercise 3, and the docstring at the top of distill.py.

At each of N positions the model gives a score z_nv to each of V words. At M of them there is a word
y_n to guess; the others have the label -100. The loss is the mean surprise over these M:

    L = 1/M sum_n -log softmax(z_n)[y_n]          log softmax(z)[y] = z_y - log sum_v exp z_v

If M is 0, the loss is 0.

Scores may be as large as 10,000, where exp overflows; use torch's logsumexp. Scores may be bf16;
turn these into fp32 before you compute, but leave float64 as it is.

Shapes: logits (N, V), labels (N,) -> a scalar. Write it with sums and gathers. Do not use torch's
cross_entropy, since the tests compare your function with it.

Check by hand: if the right one of two words has odds of 3 : 1, the loss is log(4/3) = 0.288.
Then run: python exercises/check.py 4
"""
import torch  # noqa: F401


def mlm_loss(logits, labels):
    """logits (N, V), labels (N,) -> scalar, in nats."""
    raise NotImplementedError("write mlm_loss in exercises/4_mlm.py")
