"""measure/metrics.py against scikit-learn and SciPy on random and degenerate input, and by hand."""
import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from measure import metrics

RNG = np.random.default_rng(0)
BINARY = [(RNG.integers(0, 2, n), RNG.integers(0, 2, n))
          for n in (1, 2, 3, 10, 100, 1000) for _ in range(5)]
# One class only: in both, in the predictions, in the labels.
BINARY += [(np.full(7, p), np.full(7, y)) for p in (0, 1) for y in (0, 1)]
BINARY += [(np.full(9, p), RNG.integers(0, 2, 9)) for p in (0, 1)]
BINARY += [(RNG.integers(0, 2, 9), np.full(9, y)) for y in (0, 1)]

REAL = [(RNG.normal(size=n), RNG.normal(size=n)) for n in (2, 3, 10, 300) for _ in range(4)]
# Many equal values.
REAL += [(RNG.integers(0, 4, 50), RNG.integers(0, 6, 50) / 2) for _ in range(6)]
# Perfect correlations, and numbers of very different size.
REAL += [(np.arange(5.0), np.arange(5.0) * 3 - 1), (np.arange(5.0), -np.arange(5.0)),
         (RNG.normal(size=9) * 1e-9, RNG.normal(size=9) * 1e9)]


@pytest.mark.parametrize("predictions, labels", BINARY)
def test_binary_metrics_are_scikit_learns(predictions, labels):
    accuracy = sklearn.metrics.accuracy_score(labels, predictions)
    f1 = sklearn.metrics.f1_score(labels, predictions, zero_division=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where there is one class only
        matthews = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert metrics.accuracy(predictions, labels) == pytest.approx(accuracy)
    assert metrics.f1(predictions, labels) == pytest.approx(f1)
    assert metrics.matthews(predictions, labels) == pytest.approx(matthews)


@pytest.mark.parametrize("predictions, labels", REAL)
def test_correlations_are_scipys(predictions, labels):
    pearson = scipy.stats.pearsonr(predictions, labels)[0]
    spearman = scipy.stats.spearmanr(predictions, labels)[0]
    assert metrics.pearson(predictions, labels) == pytest.approx(pearson, abs=1e-12)
    assert metrics.spearman(predictions, labels) == pytest.approx(spearman, abs=1e-12)


@pytest.mark.parametrize("predictions, labels", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_the_correlation_with_a_constant_is_undefined(predictions, labels):
    assert math.isnan(metrics.pearson(predictions, labels))
    assert math.isnan(metrics.spearman(predictions, labels))


def test_equal_values_share_their_ranks():
    assert metrics.ranks([10, 20, 20, 5]).tolist() == [2, 3.5, 3.5, 1]
    values = RNG.integers(0, 5, 40)
    assert metrics.ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


def test_matthews_and_f1_by_hand():
    predictions, labels = [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]
    # TP 2, FP 1, FN 0, TN 3: (2 * 3 - 0) / sqrt(3 * 2 * 4 * 3) = 6 / sqrt 72
    assert metrics.matthews(predictions, labels) == pytest.approx(6 / math.sqrt(72))
    # Precision 2/3 and recall 1: their harmonic mean is 2 (2/3) / (2/3 + 1) = 0.8
    assert metrics.f1(predictions, labels) == pytest.approx(0.8)
