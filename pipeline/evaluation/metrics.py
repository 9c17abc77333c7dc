"""Task metrics for many settings at once: (k, n) predictions against n labels give k values.

A sweep scores hundreds of thresholds on one trace, so metrics work over leading axes. Metrics that only count rows
take the counting function as an argument, and a sweep counts without its (k, n) predictions. Tests compare each metric
with scikit-learn or SciPy. An undefined value (a constant prediction has no correlation) is NaN, never 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
Total = Callable[[np.ndarray], np.ndarray]
"""Number of rows with a property: (..., n) boolean to (k,)."""


def _over_rows(flags: np.ndarray) -> np.ndarray:
    return np.asarray(np.sum(flags, axis=-1, dtype=np.float64))


def accuracy(predictions: np.ndarray, labels: np.ndarray, total: Total = _over_rows) -> np.ndarray:
    """Share of rows predicted right, (k, n), (n,) to (k,)."""
    return np.asarray(total(predictions == labels) / labels.shape[-1])


def _binary_counts(predictions: np.ndarray, labels: np.ndarray, total: Total) -> tuple[Any, ...]:
    positive, truth = predictions == 1, labels == 1
    tp = total(positive & truth)
    fp = total(positive) - tp
    fn = np.sum(truth) - tp
    return tp, fp, fn, labels.shape[-1] - tp - fp - fn


def f1(predictions: np.ndarray, labels: np.ndarray, total: Total = _over_rows) -> np.ndarray:
    """F1 of class 1 in a binary task, 2TP / (2TP + FP + FN)."""
    tp, fp, fn, _ = _binary_counts(predictions, labels, total)
    return _divide(2 * tp, 2 * tp + fp + fn)


def matthews(predictions: np.ndarray, labels: np.ndarray, total: Total = _over_rows) -> np.ndarray:
    """Matthews correlation of a binary task; 0 when the prediction is constant, as scikit-learn has it."""
    tp, fp, fn, tn = _binary_counts(predictions, labels, total)
    scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.where(scale == 0, 0.0, (tp * tn - fp * fn) / np.where(scale == 0, 1.0, scale))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson correlation, in whatever unit either side is; NaN when either side is constant."""
    x, y = _deviations(predictions), _deviations(labels)
    return _divide(np.sum(x * y, axis=-1), np.sqrt(np.sum(x * x, axis=-1) * np.sum(y * y)))


def _deviations(values: np.ndarray) -> np.ndarray:
    """Deviations from the mean over the last axis; all 0 where values are equal, whatever the mean rounds to.

    They are scaled to about 1 by a power of two, so that no unit makes their squares vanish and no digit changes.
    """
    constant = np.max(values, axis=-1, keepdims=True) == np.min(values, axis=-1, keepdims=True)
    deviations = np.where(constant, 0.0, values - np.mean(values, axis=-1, keepdims=True))
    _, exponent = np.frexp(np.max(np.abs(deviations), axis=-1, keepdims=True))
    return np.ldexp(deviations, -exponent)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Spearman rank correlation, ties at their mean rank; NaN when either side is constant."""
    from scipy import stats  # seconds to import, and only rank correlation needs it

    return pearson(stats.rankdata(predictions, axis=-1), stats.rankdata(labels))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
BINARY = frozenset({"f1", "matthews"})
"""Metrics for two classes."""
CORRELATIONS = frozenset({"pearson", "spearman"})
"""Metrics for a regression."""
COUNTED: dict[str, Callable[[np.ndarray, np.ndarray, Total], np.ndarray]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
}
"""Metrics that only count rows."""


def score(names: tuple[str, ...], predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The task's headline score: the mean of its metrics, as GLUE averages accuracy and F1. (k, n), (n,) to (k,).

    NaN where a row has no label.
    """
    if np.isnan(labels).any():
        return np.full(predictions.shape[0], np.nan)
    return np.asarray(np.mean([METRICS[name](predictions, labels) for name in names], axis=0))
