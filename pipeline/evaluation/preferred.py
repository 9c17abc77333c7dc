"""The operating point that the rows that chose the thresholds prefer: the report's best, and what is registered."""

from collections.abc import Iterable, Iterator, Sequence
from math import isclose, isfinite
from statistics import median

from pipeline.evaluation.criteria import CRITERIA
from pipeline.results import Curve, Row


def preferred(rows: Sequence[Row], curves: Sequence[Curve], split: str) -> Row | None:
    """The operating point of a split that selection rows prefer; None where no model leaves early."""
    return max(early_rows(rows, split), key=lambda row: preference(row, curves), default=None)


def early_rows(rows: Iterable[Row], split: str) -> Iterator[Row]:
    """The rows under an exit rule that can run, and under which rows leave at different exits."""
    for row in rows:
        if row.split != split or row.criterion is None:
            continue
        if CRITERIA[row.criterion].causal and CRITERIA[row.criterion].adaptive:
            yield row


def preference(row: Row, curves: Iterable[Curve]) -> tuple[bool, float, float]:
    """What the rows that chose the thresholds say of an operating point, the best last.

    Whether it meets the chooser's condition, then the medians of score and speed-up; where the score is bounded, of
    speed-up and score.

    Report rows do not choose: the best of several criteria on the rows that are reported looks better than it is.
    """
    by_seed = {
        curve.seed: curve
        for curve in curves
        if (curve.backbone, curve.method, curve.criterion, curve.split)
        == (row.backbone, row.method, row.criterion, row.selected_on)
    }
    found = [
        _at(by_seed[seed], point.limit) for seed, point in zip(row.seeds, row.points, strict=True) if seed in by_seed
    ]
    points = [point for point in found if point is not None]
    if len(points) < len(row.seeds):
        return row.in_window, -2.0, 0.0  # below every score
    score, speed = median(score for score, _ in points), median(speed for _, speed in points)
    return (row.in_window, speed, score) if row.rule == "risk" else (row.in_window, score, speed)


def _at(curve: Curve, threshold: float) -> tuple[float, float] | None:
    """Score and layer speed-up of a setting, which a curve has in fewer digits."""
    near = (p for p in curve.points if isclose(p.threshold, threshold, rel_tol=1e-5, abs_tol=1e-7))
    point = min(near, key=lambda p: abs(p.threshold - threshold) if isfinite(threshold) else 0.0, default=None)
    return None if point is None else (point.score, point.layer_speedup)
