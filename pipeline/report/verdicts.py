"""Does patience win? Paired by seed: the same trained model under two exit rules, on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.intervals import median_interval
from pipeline.report.stored import Curve, Evaluated, Interval, Result

CHAMPION = "patience"
ALL_LAYERS, SINGLE = "all layers", "single exit"
PLAIN = ("single_exit", "plain")
"""Methods that train the model plainly, with its last exit only: of texts, of images."""


@dataclass(frozen=True)
class Verdict:
    """Patience against one rival, both at their operating points; differences are patience minus rival.

    Attributes:
        rival: a criterion, "all layers" of the same model, or another model of the same seed: "single exit", or the
            method of a model that was made smaller.
        theirs: the rival's row.
        own_points: difference at each rule's own operating point.
        same_speed: difference to the rival's curve at patience's layer speed-up; None for a rival without a curve.
    """

    champion: Result
    rival: str
    theirs: Result
    own_points: Interval
    same_speed: Interval | None


def word(difference: Interval) -> str:
    """The verdict in a word or two: ahead or behind on every seed; a range that holds 0 decides nothing.

    >>> word(Interval(0.4, 0.1, 0.9, 5)), word(Interval(0.4, -0.1, 0.9, 5)), word(Interval(0.4, None, None, 1))
    ('ahead', 'not told apart', 'ahead (one seed)')
    """
    if difference.centre is None:
        return "n/a"
    if difference.low is None or difference.high is None:
        side = "ahead" if difference.centre > 0 else "behind" if difference.centre < 0 else "equal"
        return f"{side} (one seed)"
    if difference.low == difference.high == 0:
        return "equal"
    if difference.low > 0:
        return "ahead"
    return "behind" if difference.high < 0 else "not told apart"


def verdicts(result: Evaluated) -> list[Verdict]:
    """Patience against every other rule of the same task, split, backbone and method, and against models without
    early exits. Bounds (oracle, random) are no rivals: nobody can run them."""
    found = []
    for champion in (row for row in result.rows if row.criterion == CHAMPION):
        mine = []
        for row in result.rows:
            if (row.task, row.split, row.backbone) != (champion.task, champion.split, champion.backbone):
                continue
            if row is champion or (row.method != champion.method and result.group(row).multi_exit):
                continue
            if row.criterion and not CRITERIA[row.criterion].causal:
                continue
            mine.append(_against(champion, row, result.curves))
        found += sorted(mine, key=place)
    return found


def place(verdict: Verdict) -> int:
    """Sorts rivals: exit rules keep their order and come first, then all layers, the single exit, smaller models."""
    if verdict.theirs.criterion:
        return 0
    return (ALL_LAYERS, SINGLE).index(verdict.rival) + 1 if verdict.rival in (ALL_LAYERS, SINGLE) else 3


def _against(champion: Result, theirs: Result, curves: Sequence[Curve]) -> Verdict:
    same_model = theirs.method == champion.method
    other = SINGLE if theirs.method in PLAIN else theirs.method.replace("_", " ")
    rival = theirs.criterion or (ALL_LAYERS if same_model else other)
    scores = dict(zip(theirs.seeds, theirs.score.values, strict=True))
    mine = zip(champion.seeds, champion.score.values, strict=True)
    own = _interval([_minus(score, scores[seed]) for seed, score in mine if seed in scores])
    same = None
    if same_model and theirs.criterion:
        same = _interval([_at_its_speed(champion, i, theirs.criterion, curves) for i in range(len(champion.seeds))])
    return Verdict(champion, rival, theirs, own, same)


def _at_its_speed(champion: Result, i: int, rival: str, curves: Sequence[Curve]) -> float | None:
    """One seed: patience's score minus the rival's curve at patience's speed; None outside what the curve reaches."""
    wanted = (champion.task, champion.backbone, champion.method, rival, champion.seeds[i], champion.split)
    curve = next((c for c in curves if (c.task, c.backbone, c.method, c.criterion, c.seed, c.split) == wanted), None)
    speed = champion.layer_speedup.values[i]
    if curve is None or speed is None:
        return None
    return _minus(champion.score.values[i], score_at(curve, speed))


def score_at(curve: Curve, speed: float) -> float | None:
    """A curve's score at a layer speed-up; None outside. Between two settings it is linear in the layers run, 1 /
    speed: what running some rows under the one setting and the rest under the other gives."""
    grid, scores = by_speed(curve)
    if len(grid) == 0 or not grid[0] - 1e-9 <= speed <= grid[-1] + 1e-9:
        return None
    return float(np.interp(-1 / speed, -1 / grid, scores))


def by_speed(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """A curve as rising layer speed-ups and scores; settings of equal speed are one point, at their mean score."""
    speeds = np.array([point.layer_speedup for point in curve.points])
    scores = np.array([point.score for point in curve.points])
    grid, index = np.unique(speeds, return_inverse=True)
    sums = np.bincount(index, weights=scores, minlength=len(grid))
    return grid, sums / np.maximum(np.bincount(index, minlength=len(grid)), 1)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _interval(differences: Sequence[float | None]) -> Interval:
    """Median and range of paired differences; not defined as soon as one seed's is not."""
    values = [value for value in differences if value is not None]
    if not values or len(values) < len(differences):
        return Interval(None, n=len(values))
    return Interval.over_seeds(median_interval(values))
