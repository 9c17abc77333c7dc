"""First crossings: which thresholds take a row past an exit, and sums over rows at every threshold.

With ascending thresholds a row that goes past an exit at one of them does so at all higher ones. One small number per
row and exit therefore holds a whole sweep, and a sum over rows at each of k thresholds is one histogram of changes: no
array of k x n is made.
"""

import numpy as np


def first_past(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Index of the first threshold at which each row goes past each exit but the last; k where none does.

    Args:
        scores: after each exit, (n, exits).
        thresholds: ascending, (k,).

    Returns:
        (n, exits - 1), in the smallest unsigned type that holds k.
    """
    reached = np.maximum.accumulate(scores[:, :-1], axis=1)
    return np.searchsorted(thresholds, reached, side="right").astype(np.min_scalar_type(len(thresholds)))


def exits_at(past: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Exit that answers each row, 0-based, at the thresholds of indices `at`: (n, exits - 1), (m,) to (m, n)."""
    # Signed: a reader may take differences.
    out = np.zeros((len(at), len(past)), dtype=np.int8 if past.shape[1] < 128 else np.int32)
    for column in past.T:
        out += column <= at[:, None]
    return out


def exit_counts(past: np.ndarray, k: int) -> np.ndarray:
    """Rows that leave at each exit at each of k thresholds, (n, exits - 1) to (k, exits) int64."""
    n, early = past.shape
    gone = np.zeros((k, early + 2), dtype=np.int64)
    gone[:, 0] = n
    for j in range(early):
        gone[:, j + 1] = np.cumsum(np.bincount(past[:, j], minlength=k + 1)[:k])
    return gone[:, :-1] - gone[:, 1:]


def totals(past: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    """Sum over rows of each row's value at the exit that answers it, at each of k thresholds.

    Exact where the sums are whole numbers below 2**53.

    Args:
        values: at each exit, (n, exits); boolean or float.

    Returns:
        (k,) float64.
    """
    if values.dtype == np.bool_:
        change = np.diff(values.view(np.int8), axis=1)
        moved = np.flatnonzero(change)  # few: neighbouring exits mostly agree
        index, weights = past.ravel()[moved], change.ravel()[moved]
    else:
        index, weights = past.ravel(), np.diff(values, axis=1).ravel()
    steps = np.bincount(index, weights=weights, minlength=k + 1)[:k]
    return np.asarray(np.sum(values[:, 0], dtype=np.float64) + np.cumsum(steps))
