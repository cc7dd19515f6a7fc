"""What counting words achieves: the losses that a language model must beat before it has learned anything.

A masked language model first learns how frequent each word is, and sits on the unigram loss until attention finds the
neighbouring words. Its loss then looks fine, far below log V, and the model knows nothing. So every validation loss is
reported beside two losses of mere counting, on the same masked words:

  unigram      p(w), the frequency of the word
  neighbours   p(w | l, r), where l and r are the words to its left and right, read off the unmasked text

A model sees a little more than either: 10% of the words that it has to predict stay in place, and a random word stands in
for 10%. That is worth up to 0.3 nats, also where the text has no structure at all.

All by counts in a sample of the training text. Losses are in nats, mean over the masked words.
"""
import numpy as np


def unigram(sample, V):
    """sample: (n, T) blocks -> p (V,), with one added to each count: no word is impossible."""
    counts = np.bincount(sample[:, 1:].reshape(-1), minlength=V) + 1.0
    return counts / counts.sum()


def unigram_loss(p, labels):
    """-mean log p(w) over labels (N,); -100 is no label."""
    return float(-np.log(p[labels[labels >= 0]]).mean())


class Counts:
    """How often each word w was seen in each context c. contexts, words: (M,) of one observation each."""

    def __init__(self, contexts, words, V):
        self.V = V
        codes, self.counts = np.unique(contexts.astype(np.int64) * V + words, return_counts=True)
        self.contexts, self.words = codes // V, codes % V

    def row(self, c):
        """(words, counts) that were seen in context c."""
        first, last = np.searchsorted(self.contexts, [c, c + 1])
        return self.words[first:last], self.counts[first:last]


def neighbour_loss(sample, blocks, positions, labels, p):
    """The loss of knowing both neighbours, by counts with back-off.

    sample (n, T), training text to count in; blocks (m, T), the validation text, unmasked; positions (N,) in the flattened
    blocks, labels (N,); p (V,) the unigram frequencies. With kappa imaginary observations of the shorter context's guess,

      p(w | l)    = (c(l, w) + kappa p(w)) / (c(l) + kappa),        and p(w | r) likewise
      q(w | l, r) = p(w | l) p(w | r) / p(w) / Z,                   as if l and r were independent given w
      p(w | l, r) = (c(l, w, r) + kappa q(w | l, r)) / (c(l, r) + kappa)

    where c counts inside blocks. At a block's end, which has no right neighbour, it is p(w | l). Returned is the lowest loss
    of kappa = 1, 4, 16, 64: chosen on these very words, so a little better than counting is."""
    sample, blocks = sample.astype(np.int64), blocks.astype(np.int64)  # l V + r is beyond 16 bits
    V, T = len(p), blocks.shape[1]
    l, w, r = sample[:, :-2].reshape(-1), sample[:, 1:-1].reshape(-1), sample[:, 2:].reshape(-1)
    after, before, between = Counts(l, w, V), Counts(r, w, V), Counts(l * V + r, w, V)
    flat = blocks.reshape(-1)
    kappas = np.array([1.0, 4.0, 16.0, 64.0])
    losses = []
    for position, label in zip(positions, labels):
        if label < 0:
            continue
        left, right = flat[position - 1], flat[position + 1] if (position + 1) % T else None  # [CLS] is left of the first
        words_l, counts_l = after.row(left)
        words_r, counts_r = before.row(right) if right is not None else (words_l[:0], counts_l[:0])
        words_lr, counts_lr = between.row(left * V + right) if right is not None else (words_l[:0], counts_l[:0])
        c_l, c_r, c_lr = (seen(words, counts, label) for words, counts in
                          ((words_l, counts_l), (words_r, counts_r), (words_lr, counts_lr)))
        # Z = sum over w of (c(l,w) + kappa p(w)) (c(w,r) + kappa p(w)) / p(w), over (c(l) + kappa)(c(r) + kappa), which cancels
        both, in_l, in_r = np.intersect1d(words_l, words_r, assume_unique=True, return_indices=True)
        Z = (counts_l[in_l] * counts_r[in_r] / p[both]).sum() + kappas * (counts_l.sum() + counts_r.sum()) + kappas ** 2
        q = (c_l + kappas * p[label]) * (c_r + kappas * p[label]) / p[label] / Z
        losses.append(-np.log((c_lr + kappas * q) / (counts_lr.sum() + kappas)))
    return float(np.mean(losses, axis=0).min())


def seen(words, counts, word):
    """The count of one word in a row of Counts."""
    place = np.searchsorted(words, word)
    return counts[place] if place < len(words) and words[place] == word else 0


def counting_losses(sample, blocks, inputs, positions, labels, V):
    """{"unigram_loss", "neighbour_loss"} of a masked validation set, by counts in a sample."""
    p = unigram(sample, V)
    return {"unigram_loss": unigram_loss(p, labels),
            "neighbour_loss": neighbour_loss(sample, blocks, positions, labels, p)}
