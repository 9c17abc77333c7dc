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


def _of_class(c: int, predictions: np.ndarray, labels: np.ndarray, total: Total) -> tuple[np.ndarray, np.ndarray, Any]:
    """Rows of a class that are predicted right, rows predicted as it, and rows that are labelled so."""
    positive, truth = predictions == c, labels == c
    return total(positive & truth), total(positive), np.sum(truth)


def f1(predictions: np.ndarray, labels: np.ndarray, total: Total = _over_rows) -> np.ndarray:
    """F1 of class 1 in a binary task, 2TP / (2TP + FP + FN)."""
    true, predicted, labelled = _of_class(1, predictions, labels, total)
    return _divide(2 * true, predicted + labelled)


def _by_class(predictions: np.ndarray, labels: np.ndarray, total: Total) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `_of_class` gives for every class: right and predicted (classes, k), labelled (classes, 1)."""
    classes = int(max(np.max(predictions, initial=0), np.max(labels, initial=0))) + 1
    counts = [_of_class(c, predictions, labels, total) for c in range(classes)]
    true, predicted, labelled = (np.array(column, dtype=np.float64) for column in zip(*counts, strict=True))
    return true, predicted, labelled[:, None]


def macro_f1(predictions: np.ndarray, labels: np.ndarray, total: Total = _over_rows) -> np.ndarray:
    """Mean of the F1 of each class, whatever its number of rows.

    As in scikit-learn, a class that neither a label nor a prediction has is left out, and one that only labels or only
    predictions have counts 0.
    """
    true, predicted, labelled = _by_class(predictions, labels, total)
    either = predicted + labelled
    return _divide(np.sum(2 * true / np.where(either == 0, 1.0, either), axis=0), np.sum(either != 0, axis=0))


def matthews(predictions: np.ndarray, labels: np.ndarray, total: Total = _over_rows) -> np.ndarray:
    """Matthews correlation, for more than two classes as Gorodkin extends it (R_K).

    0 where all predictions, or all labels, are of one class, as scikit-learn has it.
    """
    rows = labels.shape[-1]
    true, predicted, labelled = _by_class(predictions, labels, total)
    covariance = rows * np.sum(true, axis=0) - np.sum(predicted * labelled, axis=0)
    scale = np.sqrt((rows**2 - np.sum(predicted**2, axis=0)) * (rows**2 - np.sum(labelled**2, axis=0)))
    return np.where(scale == 0, 0.0, covariance / np.where(scale == 0, 1.0, scale))


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
    return np.asarray(np.ldexp(deviations, -exponent))


def spearman(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Spearman rank correlation, ties at their mean rank; NaN when either side is constant."""
    from scipy import stats  # seconds to import, and only rank correlation needs it

    return pearson(stats.rankdata(predictions, axis=-1), stats.rankdata(labels))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
BINARY = frozenset({"f1"})
"""Metrics for two classes."""
CORRELATIONS = frozenset({"pearson", "spearman"})
"""Metrics for a regression."""
COUNTED: dict[str, Callable[[np.ndarray, np.ndarray, Total], np.ndarray]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
}
"""Metrics that only count rows."""


def metrics_for(kind: str, classes: int) -> tuple[str, ...]:
    """The metrics that have a meaning for answers of a kind, "classification" of so many classes or "regression"."""
    if kind == "regression":
        return tuple(name for name in METRICS if name in CORRELATIONS)
    return tuple(n for n in METRICS if n not in CORRELATIONS and (classes == 2 or n not in BINARY))


def score(names: tuple[str, ...], predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The task's headline score: the mean of its metrics, as GLUE averages accuracy and F1. (k, n), (n,) to (k,).

    NaN where a row has no label.
    """
    if np.isnan(labels).any():
        return np.full(predictions.shape[0], np.nan)
    return np.asarray(np.mean([METRICS[name](predictions, labels) for name in names], axis=0))
