"""Counting words: the two baselines against the formulas of their docstrings, over whole vectors in float64."""
import math

import numpy as np
import pytest

from measure import baselines

# ---------------------------------------------------------------------------------------------------------------------
# Unigram

def test_unigram_by_hand():
    # Column 0 is [CLS], which is never a masked word. Of the rest: word 1 four times, word 2 twice, 0 and 3 never; add one.
    sample = np.array([[0, 1, 1, 2],
                       [0, 2, 1, 1]])
    p = baselines.unigram(sample, 4)
    np.testing.assert_allclose(p, [1 / 10, 5 / 10, 3 / 10, 1 / 10], rtol=1e-15)
    assert baselines.unigram_loss(p, np.array([1, -100, 3])) == pytest.approx((math.log(2) + math.log(10)) / 2)


def test_unigram_is_a_distribution_over_all_words_seen_or_not():
    p = baselines.unigram(np.random.default_rng(0).integers(0, 50, (20, 9)), 1000)
    assert p.shape == (1000,) and p.min() > 0 and p.sum() == pytest.approx(1)


def test_uniform_frequencies_cost_log_V():
    assert baselines.unigram_loss(np.full(77, 1 / 77), np.array([0, 5, 76, -100])) == pytest.approx(math.log(77))


# ---------------------------------------------------------------------------------------------------------------------
# Both neighbours

def by_the_formulas(sample, blocks, positions, labels, p):
    """The docstring's three formulas as they stand there, (V,) numbers at a time and one loop over the text."""
    V, T = len(p), blocks.shape[1]
    c_l, c_r, c_lr = np.zeros((V, V)), np.zeros((V, V)), np.zeros((V, V, V))
    for block in sample.tolist():
        for l, w, r in zip(block, block[1:], block[2:]):
            c_l[l, w] += 1
            c_r[r, w] += 1
            c_lr[l, r, w] += 1
    losses = []
    for kappa in (1, 4, 16, 64):
        surprise = []
        for position, label in zip(positions, labels):
            if label == -100:
                continue
            row, column = divmod(position, T)
            l = blocks[row, column - 1]
            p_l = (c_l[l] + kappa * p) / (c_l[l].sum() + kappa)
            if column == T - 1:  # nothing to the right: p(w | l) is all there is
                p_lr = p_l
            else:
                r = blocks[row, column + 1]
                p_r = (c_r[r] + kappa * p) / (c_r[r].sum() + kappa)
                q = p_l * p_r / p
                q /= q.sum()
                p_lr = (c_lr[l, r] + kappa * q) / (c_lr[l, r].sum() + kappa)
            surprise.append(-math.log(p_lr[label]))
        losses.append(sum(surprise) / len(surprise))
    return min(losses)


def random_text(rng, V, shape):
    """Words that depend on the one before, so that some contexts are frequent, some rare, and some never seen."""
    text = rng.integers(0, V, shape)
    for column in range(1, shape[1]):
        follow = rng.random(shape[0]) < 0.6
        text[follow, column] = (2 * text[follow, column - 1] + 1) % V
    return text


@pytest.mark.parametrize("seed", range(12))
def test_neighbour_loss_is_its_formulas(seed):
    rng = np.random.default_rng(seed)
    V, T = int(rng.integers(3, 14)), int(rng.integers(3, 12))
    sample, blocks = random_text(rng, V, (int(rng.integers(1, 60)), T)), random_text(rng, V, (7, T))
    # any but a block's first word, which is [CLS]; its last word always among them; and labels that are not in the text
    positions = np.array([7 * T - 1] + [place for place in range(7 * T) if place % T and rng.random() < 0.5])
    labels = np.where(rng.random(len(positions)) < 0.8, blocks.reshape(-1)[positions], rng.integers(0, V, len(positions)))
    labels[1:][rng.random(len(labels) - 1) < 0.2] = -100
    p = baselines.unigram(sample, V)
    expected = by_the_formulas(sample, blocks, positions, labels, p)
    assert baselines.neighbour_loss(sample, blocks, positions, labels, p) == pytest.approx(expected, rel=1e-10)


def test_the_masked_word_itself_is_not_read():
    rng = np.random.default_rng(0)
    sample, blocks = random_text(rng, 9, (50, 8)), random_text(rng, 9, (1, 8))
    p, losses = baselines.unigram(sample, 9), set()
    for word in range(9):
        blocks[0, 4] = word
        losses.add(baselines.neighbour_loss(sample, blocks, np.array([4]), np.array([5]), p))
    assert len(losses) == 1


@pytest.mark.parametrize("favoured", ["few", "many"])
@pytest.mark.parametrize("column", [1, 4, 7])
def test_the_probabilities_of_all_words_sum_to_1(favoured, column):
    # The loss is the lowest of four kappas: asked for one word at a time it would pick each its own, and the sum would
    # exceed 1. So every question goes together with 400 copies of another, which settles the kappa. Between 7 and 9 stands always
    # 8, though 9 would be likelier by what is beside 7 and beside 9: that wants few imaginary observations. Between 7 and 9
    # stands never 2: that wants many.
    rng = np.random.default_rng(1)
    V, T, copies = 10, 8, 400
    sample = np.concatenate([random_text(rng, 7, (40, T)), np.full((30, T), [7, 8, 9, 8, 7, 9, 7, 8]), np.full((30, T), 9)])
    blocks = np.stack([np.array([7, 8, 9, 8, 7, 9, 7, 8]), random_text(rng, 7, (1, T))[0]])
    p = baselines.unigram(sample, V)
    anchor = [1] * copies, [8 if favoured == "few" else 2] * copies

    def loss(positions, labels):
        return baselines.neighbour_loss(sample, blocks, np.array(positions), np.array(labels), p)
    known = copies * loss(*anchor)
    surprise = [(copies + 1) * loss(anchor[0] + [T + column], anchor[1] + [word]) - known for word in range(V)]
    assert np.exp(-np.array(surprise)).sum() == pytest.approx(1, abs=1e-8)


def test_neighbours_that_determine_the_word_leave_nothing_to_guess():
    # w = l + r mod 7, with l and r at random: the word is a function of both neighbours and of neither alone. Its frequency
    # says nothing, log 7; 49 pairs of neighbours, seen 200 times each, say all.
    rng = np.random.default_rng(0)

    def text(n):
        l, r = rng.integers(1, 8, (2, n))
        return np.stack([np.zeros_like(l), l, 1 + (l + r) % 7, r], axis=1)  # [CLS] l w r
    sample, blocks = text(49 * 200), text(100)
    positions = np.arange(100) * 4 + 2
    labels = blocks[:, 2]
    p = baselines.unigram(sample, 8)
    assert baselines.unigram_loss(p, labels) == pytest.approx(math.log(7), abs=0.02)
    assert baselines.neighbour_loss(sample, blocks, positions, labels, p) < 0.01


def test_without_any_text_neighbours_say_no_more_than_frequency():
    p = np.array([0.1, 0.2, 0.3, 0.4])
    positions, labels = np.array([1, 2, 3]), np.array([1, 3, 2])
    loss = baselines.neighbour_loss(np.zeros((0, 4), dtype=np.int64), np.array([[0, 1, 3, 2]]), positions, labels, p)
    assert loss == pytest.approx(-math.log(0.2 * 0.4 * 0.3) / 3)
