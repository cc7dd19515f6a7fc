"""GLUE's metrics, by hand. Arrays of n predictions and n labels in, a float out (1.0 is perfect).

The names are scikit-learn's and SciPy's, and so are the values in the degenerate cases: 0 for F1 and Matthews without a
positive or with one class only, nan for a correlation with a constant.
"""
import numpy as np


def accuracy(predictions, labels):
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def counts(predictions, labels):
    """True and false positives, false and true negatives of class 1: (TP, FP, FN, TN)."""
    p, y = np.asarray(predictions) == 1, np.asarray(labels) == 1
    return int((p & y).sum()), int((p & ~y).sum()), int((~p & y).sum()), int((~p & ~y).sum())


def f1(predictions, labels):
    """Harmonic mean of precision and recall of class 1 (MRPC, QQP)."""
    TP, FP, FN, _ = counts(predictions, labels)
    # F1 = 2 TP / (2 TP + FP + FN)
    return 2 * TP / (2 * TP + FP + FN) if TP else 0.0


def matthews(predictions, labels):
    """Matthews' correlation of two binary variables (CoLA): 0 for any prediction that does not depend on the label."""
    TP, FP, FN, TN = counts(predictions, labels)
    # MCC = (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN))
    product = (TP + FP) * (TP + FN) * (TN + FP) * (TN + FN)
    return (TP * TN - FP * FN) / product ** 0.5 if product else 0.0


def pearson(predictions, labels):
    """Linear correlation (STS-B)."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (predictions, labels))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    # r = sum xy / sqrt(sum x^2 sum y^2), around the means; scaled first, so that squares of tiny numbers do not vanish
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def ranks(values):
    """1 for the smallest; equal values share the mean of their ranks."""
    values = np.asarray(values, dtype=np.float64)
    _, where, how_many = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(how_many)  # the rank of the last of each group of equals
    return (last - (how_many - 1) / 2)[where]


def spearman(predictions, labels):
    """Correlation of the ranks (STS-B)."""
    return pearson(ranks(predictions), ranks(labels))
