"""measure/baselines.py: the two losses against the formulas of their docstrings, computed with
vectors over the whole vocabulary."""
import math

import numpy as np
import pytest

from measure import baselines


def test_unigram_by_hand():
    # Column 0 is [CLS], which is never masked. In the rest word 1 occurs four times, word 2 twice,
    # 0 and 3 never. To each count one is added.
    sample = np.array([[0, 1, 1, 2],
                       [0, 2, 1, 1]])
    p = baselines.unigram(sample, 4)
    np.testing.assert_allclose(p, [1 / 10, 5 / 10, 3 / 10, 1 / 10], rtol=1e-15)
    loss = baselines.unigram_loss(p, np.array([1, -100, 3]))
    assert loss == pytest.approx((math.log(2) + math.log(10)) / 2)


def by_the_formulas(sample, blocks, positions, labels, p):
    """The loss by the formulas of the docstring, as they stand there: vectors of V numbers."""
    V, T = len(p), blocks.shape[1]
    c_l, c_r, c_lr = np.zeros((V, V)), np.zeros((V, V)), np.zeros((V, V, V))
    for block in sample.tolist():
        for l, w, r in zip(block, block[1:], block[2:]):
            c_l[l, w] += 1
            c_r[r, w] += 1
            c_lr[l, r, w] += 1

    def distribution(row, column, kappa):
        l = blocks[row, column - 1]
        p_l = (c_l[l] + kappa * p) / (c_l[l].sum() + kappa)
        if column == T - 1:  # there is nothing to the right
            return p_l
        r = blocks[row, column + 1]
        p_r = (c_r[r] + kappa * p) / (c_r[r].sum() + kappa)
        q = p_l * p_r / p
        q /= q.sum()
        return (c_lr[l, r] + kappa * q) / (c_lr[l, r].sum() + kappa)

    losses = []
    for kappa in (1, 4, 16, 64):
        known = [(divmod(i, T), label) for i, label in zip(positions, labels) if label != -100]
        terms = [-math.log(distribution(*place, kappa)[label]) for place, label in known]
        losses.append(sum(terms) / len(terms))
    return min(losses)


def random_text(rng, V, shape):
    """Words that depend on the one before: contexts are frequent, rare, or never seen."""
    text = rng.integers(0, V, shape)
    for column in range(1, shape[1]):
        follow = rng.random(shape[0]) < 0.6
        text[follow, column] = (2 * text[follow, column - 1] + 1) % V
    return text


@pytest.mark.parametrize("seed", range(12))
def test_neighbour_loss_is_its_formulas(seed):
    rng = np.random.default_rng(seed)
    V, T = int(rng.integers(3, 14)), int(rng.integers(3, 12))
    sample = random_text(rng, V, (int(rng.integers(1, 60)), T))
    blocks = random_text(rng, V, (7, T))
    # The last word of a block is always among the positions; the first one, which is [CLS], never.
    inside = [i for i in range(7 * T) if i % T != 0 and rng.random() < 0.5]
    positions = np.array([7 * T - 1, *inside])
    # Some labels are not the word of the text, and some are none.
    N = len(positions)
    is_of_the_text = rng.random(N) < 0.8
    labels = np.where(is_of_the_text, blocks.reshape(-1)[positions], rng.integers(0, V, N))
    labels[1:][rng.random(N - 1) < 0.2] = -100
    p = baselines.unigram(sample, V)
    expected = by_the_formulas(sample, blocks, positions, labels, p)
    loss = baselines.neighbour_loss(sample, blocks, positions, labels, p)
    assert loss == pytest.approx(expected, rel=1e-10)


def test_the_counts_of_16_bit_tokens_do_not_overflow():
    rng = np.random.default_rng(0)
    V, T = 1000, 8  # l V + r is up to 10^6, beyond 16 bits
    sample, blocks = random_text(rng, V, (40, T)), random_text(rng, V, (3, T))
    positions, labels = np.array([1, 9, 20]), np.array([5, 6, 7])
    p = baselines.unigram(sample, V)
    wide = baselines.neighbour_loss(sample, blocks, positions, labels, p)
    narrow = [array.astype(np.uint16) for array in (sample, blocks)]
    assert baselines.neighbour_loss(*narrow, positions, labels, p) == wide


def test_neighbours_that_determine_the_word_leave_nothing_to_guess():
    """w = l + r mod 7 for random l and r: the word depends on both neighbours, on neither alone.
    Its frequency says nothing (log 7). The 49 pairs of neighbours, each seen 200 times, say all."""
    rng = np.random.default_rng(0)

    def text(n):
        l, r = rng.integers(1, 8, (2, n))
        return np.stack([np.zeros_like(l), l, 1 + (l + r) % 7, r], axis=1)  # [CLS] l w r
    sample, blocks = text(49 * 200), text(100)
    positions = np.arange(100) * 4 + 2
    labels = blocks[:, 2]
    losses = baselines.counting_losses(sample, blocks, None, positions, labels, V=8)
    assert losses["unigram_loss"] == pytest.approx(math.log(7), abs=0.02)
    assert losses["neighbour_loss"] < 0.01


def test_without_any_text_neighbours_say_no_more_than_frequency():
    p = np.array([0.1, 0.2, 0.3, 0.4])
    sample, blocks = np.zeros((0, 4), dtype=np.int64), np.array([[0, 1, 3, 2]])
    positions, labels = np.array([1, 2, 3]), np.array([1, 3, 2])
    loss = baselines.neighbour_loss(sample, blocks, positions, labels, p)
    assert loss == pytest.approx(-math.log(0.2 * 0.4 * 0.3) / 3)
