"""A curve between two of its settings, for figures and verdicts alike.

Some rows run under the one setting and the rest under the other: score and layers run are then means of the two, so the
score is linear in the layers run, 1 / speed.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.results import Curve

Line = tuple[np.ndarray, np.ndarray]
"""Rising layer speed-ups, and the score at each, (m,)."""


def line_of(curve: Curve) -> Line:
    """A curve's settings by their speed."""
    return by_speed([point.layer_speedup for point in curve.points], [point.score for point in curve.points])


def by_speed(speeds: Sequence[float], scores: Sequence[float]) -> Line:
    """Settings in any order as a line; those of equal speed are one point, at their mean score."""
    grid, index = np.unique(np.asarray(speeds, dtype=np.float64), return_inverse=True)
    sums = np.bincount(index, weights=scores, minlength=len(grid))
    return grid, sums / np.maximum(np.bincount(index, minlength=len(grid)), 1)


def scores_at(line: Line, speeds: np.ndarray) -> np.ndarray:
    """A line's score at layer speed-ups, (k,); NaN where the line does not reach.

    >>> scores_at((np.array([6.0, 12.0]), np.array([0.8, 0.5])), np.array([6.0, 8.0, 13.0])).round(6)
    array([0.8 , 0.65,  nan])
    """
    grid, scores = line
    if len(grid) == 0:
        return np.full(len(speeds), np.nan)
    reached = (speeds >= grid[0] - 1e-9) & (speeds <= grid[-1] + 1e-9)
    return np.where(reached, np.interp(-1 / speeds, -1 / grid, scores), np.nan)


def drawn(line: Line, points: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """A line with at least `points` points, and the places of its settings among them."""
    grid, _ = line
    if len(grid) == 0:
        return *line, []
    speeds = np.union1d(grid, np.geomspace(grid[0], grid[-1], points))
    speeds = speeds[(speeds >= grid[0]) & (speeds <= grid[-1])]  # geomspace rounds at its ends
    return speeds, scores_at(line, speeds), np.searchsorted(speeds, grid).tolist()
