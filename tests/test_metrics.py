"""The metrics, against scikit-learn's and SciPy's, over random and degenerate input; and by hand."""
import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from measure import metrics

RNG = np.random.default_rng(0)
BINARY = [(RNG.integers(0, 2, n), RNG.integers(0, 2, n)) for n in (1, 2, 3, 10, 100, 1000) for _ in range(5)]
BINARY += [(np.full(7, p), np.full(7, y)) for p in (0, 1) for y in (0, 1)]                              # one class only
BINARY += [(np.full(9, p), RNG.integers(0, 2, 9)) for p in (0, 1)] + [(RNG.integers(0, 2, 9), np.full(9, y)) for y in (0, 1)]
REAL = [(RNG.normal(size=n), RNG.normal(size=n)) for n in (2, 3, 10, 300) for _ in range(4)]
REAL += [(RNG.integers(0, 4, 50), RNG.integers(0, 6, 50) / 2) for _ in range(6)]                        # many ties
REAL += [(np.arange(5.0), np.arange(5.0) * 3 - 1), (np.arange(5.0), -np.arange(5.0)), (RNG.normal(size=9) * 1e-9, RNG.normal(size=9) * 1e9)]


@pytest.mark.parametrize("predictions, labels", BINARY)
def test_binary_metrics_are_scikit_learns(predictions, labels):
    assert metrics.accuracy(predictions, labels) == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert metrics.f1(predictions, labels) == pytest.approx(sklearn.metrics.f1_score(labels, predictions, zero_division=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics.matthews(predictions, labels) == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions))


@pytest.mark.parametrize("predictions, labels", REAL)
def test_correlations_are_scipys(predictions, labels):
    assert metrics.pearson(predictions, labels) == pytest.approx(scipy.stats.pearsonr(predictions, labels)[0], abs=1e-12)
    assert metrics.spearman(predictions, labels) == pytest.approx(scipy.stats.spearmanr(predictions, labels)[0], abs=1e-12)


@pytest.mark.parametrize("predictions, labels", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5])])
def test_a_constant_correlates_with_nothing(predictions, labels):
    assert math.isnan(metrics.pearson(predictions, labels)) and math.isnan(metrics.spearman(predictions, labels))


def test_equal_values_share_their_ranks():
    assert metrics.ranks([10, 20, 20, 5]).tolist() == [2, 3.5, 3.5, 1]
    values = RNG.integers(0, 5, 40)
    assert metrics.ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


def test_matthews_by_hand():
    # TP 2, FP 1, FN 0, TN 3: (2 * 3 - 0) / sqrt(3 * 2 * 4 * 3) = 6 / sqrt 72
    assert metrics.matthews([1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]) == pytest.approx(6 / math.sqrt(72))
    assert metrics.f1([1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]) == pytest.approx(0.8)  # precision 2/3, recall 1
