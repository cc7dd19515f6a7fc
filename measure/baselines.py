"""What counting words achieves: the losses that a model must beat to have learned anything.

A masked language model first learns how frequent each word is. Then its loss stays near the unigram
loss until attention finds the neighbouring words. Such a loss looks fine, far below log V, though
the model knows nothing of the text's order. So every validation loss is reported beside the losses
of two models that only count, on the same masked words:

  unigram      p(w), the frequency of the word
  neighbours   p(w | l, r), where l and r are the words to its left and right in the unmasked text

A masked language model sees a little more than either: of the words that it must predict, 10% stay
in place and 10% are replaced by a random word. That is worth up to 0.3 nats. The counts come from a
sample of the training text. Losses are means over the masked words, in nats.

Shapes: n or m blocks of T tokens, N masked positions, V vocabulary.
"""
import numpy as np


def counting_losses(sample, blocks, inputs, positions, labels, V):
    """The two losses on a masked validation set: {"unigram_loss": nats, "neighbour_loss": nats}.

    sample (n, T): blocks of training text. The validation set: blocks (m, T), inputs (m, T) the
    same masked (they are not read), positions (N,) in the flattened blocks, labels (N,)."""
    p = unigram(sample, V)
    return {"unigram_loss": unigram_loss(p, labels),
            "neighbour_loss": neighbour_loss(sample, blocks, positions, labels, p)}


def unigram(sample, V):
    """sample (n, T) -> p (V,), the frequencies of the words. The first token of each block, [CLS],
    is not counted."""
    # p(w) = (c(w) + 1) / sum of all (c + 1): with one added, no word is impossible
    counts = np.bincount(sample[:, 1:].reshape(-1), minlength=V) + 1.0  # (n, T - 1) -> (n (T - 1),)
    return counts / counts.sum()


def unigram_loss(p, labels):
    """-mean log p(w) over labels (N,). Positions with the label -100 are ignored."""
    return float(-np.log(p[labels[labels >= 0]]).mean())


class Counts:
    """How often each word was seen in each context, which is any whole number. contexts, words:
    arrays of one shape, with an observation at each place."""

    def __init__(self, contexts, words, V):
        codes = contexts.astype(np.int64) * V + words  # a number for each pair of context and word
        codes, self.counts = np.unique(codes, return_counts=True)  # any shape -> (pairs,)
        self.contexts, self.words = codes // V, codes % V

    def row(self, context):
        """(words, counts) of the words that were seen in a context, in rising order of words."""
        first, last = np.searchsorted(self.contexts, [context, context + 1])
        return self.words[first:last], self.counts[first:last]


NEVER_SEEN = np.zeros(0, np.int64), np.zeros(0, np.int64)  # the row of an unknown context


def count_of(word, row):
    """How often a word was seen, by a row of Counts."""
    words, counts = row
    i = np.searchsorted(words, word)
    return counts[i] if i < len(words) and words[i] == word else 0


KAPPAS = np.array([1.0, 4.0, 16.0, 64.0])


def neighbour_loss(sample, blocks, positions, labels, p):
    """The loss of a model that knows both neighbours of a word, by counts with back-off.

    sample (n, T): the training text to count in. blocks (m, T): the validation text, unmasked.
    positions (N,) in the flattened blocks, labels (N,), -100 for none. p (V,): the unigram.

    A context that was seen rarely says little. So the guess from the shorter context is mixed in,
    as if it had been observed kappa times (Dirichlet smoothing, MacKay and Peto 1995):

      p(w | l)    = (c(l, w) + kappa p(w)) / (c(l) + kappa)        and likewise p(w | r)
      q(w | l, r) = p(w | l) p(w | r) / p(w) / Z                   l and r independent, given w
      p(w | l, r) = (c(l, w, r) + kappa q(w | l, r)) / (c(l, r) + kappa)

    where c counts inside blocks. The last word of a block has no right neighbour: there it is
    p(w | l). The result is the loss of the best of KAPPAS on these very words, and so a little
    lower than counting really achieves."""
    sample, blocks = sample.astype(np.int64), blocks.astype(np.int64)  # l V + r exceeds 16 bits
    V, T = len(p), blocks.shape[1]
    l, w, r = sample[:, :-2], sample[:, 1:-1], sample[:, 2:]  # each (n, T - 2)
    after, before, between = Counts(l, w, V), Counts(r, w, V), Counts(l * V + r, w, V)
    flat = blocks.reshape(-1)                                 # (m, T) -> (m T,)
    losses = []
    for position, word in zip(positions, labels):
        if word < 0:
            continue
        left = flat[position - 1]  # left of the first word is [CLS], which is never masked
        row_l, row_r, row_lr = after.row(left), NEVER_SEEN, NEVER_SEEN
        if (position + 1) % T != 0:
            right = flat[position + 1]
            row_r, row_lr = before.row(right), between.row(left * V + right)
        losses.append(-np.log(probability(word, row_l, row_r, row_lr, p)))
    return float(np.mean(losses, axis=0).min())


def probability(w, row_l, row_r, row_lr, p):
    """p(w | l, r) for each of KAPPAS: (4,). The rows of Counts are those of l, of r and of both.
    Without a right neighbour row_r and row_lr are NEVER_SEEN: p(w | r) is p(w), the rest p(w | l).
    """
    kappa = KAPPAS
    c_l, c_r, c_lr = count_of(w, row_l), count_of(w, row_r), count_of(w, row_lr)
    (words_l, counts_l), (words_r, counts_r), (_, counts_lr) = row_l, row_r, row_lr
    # Z = sum over w of (c(l, w) + kappa p(w)) (c(r, w) + kappa p(w)) / p(w)
    #   = sum over w of c(l, w) c(r, w) / p(w)  +  kappa (c(l) + c(r))  +  kappa^2
    # The denominators (c(l) + kappa) (c(r) + kappa) cancel between q's numerator and Z.
    both, in_l, in_r = np.intersect1d(words_l, words_r, assume_unique=True, return_indices=True)
    Z = (counts_l[in_l] * counts_r[in_r] / p[both]).sum()
    Z = Z + kappa * (counts_l.sum() + counts_r.sum()) + kappa ** 2
    # q(w | l, r) = (c(l, w) + kappa p(w)) (c(r, w) + kappa p(w)) / p(w) / Z
    q = (c_l + kappa * p[w]) * (c_r + kappa * p[w]) / p[w] / Z
    # p(w | l, r) = (c(l, w, r) + kappa q(w | l, r)) / (c(l, r) + kappa)
    return (c_lr + kappa * q) / (counts_lr.sum() + kappa)
