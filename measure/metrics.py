"""GLUE's metrics, written by hand. Each takes n predictions and n labels, and gives a float. 1.0 is
perfect.

The results are those of scikit-learn and SciPy, in degenerate cases too: F1 is 0 without a true
positive, Matthews' correlation is 0 if there is one class only, and a correlation with a constant
is nan.
"""
import numpy as np


def accuracy(predictions, labels):
    """The share of predictions that are right."""
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def confusion(predictions, labels):
    """(TP, FP, FN, TN): the numbers of true and false positives, of false and true negatives. Class
    1 is the positive one."""
    p, y = np.asarray(predictions) == 1, np.asarray(labels) == 1
    return int((p & y).sum()), int((p & ~y).sum()), int((~p & y).sum()), int((~p & ~y).sum())


def f1(predictions, labels):
    """The harmonic mean of precision and recall of class 1 (MRPC, QQP)."""
    TP, FP, FN, _ = confusion(predictions, labels)
    # F1 = 2 TP / (2 TP + FP + FN)
    return 2 * TP / (2 * TP + FP + FN) if TP else 0.0


def matthews(predictions, labels):
    """Matthews' correlation of two binary variables (CoLA). Its expectation is 0 if the prediction
    does not depend on the label."""
    TP, FP, FN, TN = confusion(predictions, labels)
    # MCC = (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))
    product = (TP + FP) * (TP + FN) * (TN + FP) * (TN + FN)
    return (TP * TN - FP * FN) / product ** 0.5 if product else 0.0


def pearson(predictions, labels):
    """The linear correlation of two variables (STS-B)."""
    x, y = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    # r = sum xy / sqrt(sum x^2 sum y^2), where x and y are the distances from the means
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # else the square of a tiny number would be 0
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def ranks(values):
    """(n,) -> (n,): the smallest value has rank 1. Equal values share the mean of their ranks."""
    values = np.asarray(values, dtype=np.float64)
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)  # the last rank in each group of equal values
    return (last - (sizes - 1) / 2)[group]


def spearman(predictions, labels):
    """The linear correlation of the ranks (STS-B)."""
    return pearson(ranks(predictions), ranks(labels))
