"""Exercise 3. Which words does BERT hide? (40 minutes)

Read first: Devlin et al. 2018, section 3.1, "Task #1"; `masked_positions` in budget.py;
`Vocabulary` in files/wordpiece.py.

In each block of T tokens, k = int(0.15 T + 0.5) positions are chosen at random. There are always k
of them, so that all steps cost the same. A special token ([CLS], [SEP], ...) is never chosen. What
becomes of a chosen word is random, too, and independent of the other words:

    with a probability of 80%    it becomes [MASK]
    with a probability of 10%    it becomes a random word, any word that is no special token
    with a probability of 10%    it stays as it is

The label is the word that stood there. With N = B k the shapes are (numpy, all int64):

    blocks (B, T)  ->  inputs (B, T), positions (N,), labels (N,)

`positions` are places in the flattened blocks: row b, column t is place b T + t. They are in rising
order. Every block here holds more than k ordinary words.

`rng` is a numpy Generator; draw all randomness from it. `vocabulary.size` is V, `vocabulary.mask`
is the id of [MASK], and `vocabulary.special` holds the ids of all special tokens.

Hint: draw T random keys. The positions of the k smallest ones are a fair choice (np.argsort). Give
special tokens keys that are larger than all others.

Check by hand: T = 30 gives 4.5 + 0.5 = 5 positions in each block.
Then run: python exercises/check.py 3
"""
import numpy as np  # noqa: F401


def mask_tokens(blocks, rng, vocabulary):
    """blocks (B, T) -> inputs (B, T), positions (N,), labels (N,)."""
    raise NotImplementedError("write mask_tokens in exercises/3_masking.py")
