"""Exercise 3. Which words does BERT hide?                                                                     (40 minutes)

Read first: Devlin et al. 2018, section 3.1, "Task #1"; `masked_positions` in budget.py; `Vocabulary` in text.py.

In each block of T tokens k = int(0.15 T + 0.5) positions are chosen at random: always k, so that all steps cost the same, and never a special
token ([CLS], [SEP], ...). For each chosen word chance decides alone: with a probability of

    80% it becomes [MASK]
    10% it becomes a random word (any word of the vocabulary that is no special token)
    10% it stays as it is

and the label is the word that stood there. Shapes (numpy, all int64), with N = B k:

    blocks (B, T)  ->  inputs (B, T), positions (N,), labels (N,)

`positions` are places in the flattened blocks, in rising order: row b, column t is b T + t. `rng` is a numpy Generator: draw all randomness from it.
`vocabulary.size` is V, `vocabulary.mask` the id of [MASK], `vocabulary.special` the ids of all special tokens. Every block here holds more than k words.

Check by hand: T = 30 has 4.5 + 0.5 = 5 positions in each block. Hint: of T random keys, the k smallest make a fair choice (np.argsort); give special tokens keys that are larger than all others.
Then: python exercises/check.py 3
"""
import numpy as np  # noqa: F401


def mask_tokens(blocks, rng, vocabulary):
    """blocks (B, T) -> inputs (B, T), positions (N,), labels (N,)."""
    raise NotImplementedError("write mask_tokens in exercises/3_masking.py")
