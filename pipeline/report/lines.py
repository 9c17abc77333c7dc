"""How a criterion's curve is drawn on axes of score against speed-up: by the report and by `replay --compare`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.evaluation.criteria import CRITERIA
from pipeline.report.between import Line, by_speed, drawn, line_of, scores_at
from pipeline.report.numbers import TIMES, number, times
from pipeline.report.svg import look
from pipeline.results import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID_POINTS = 80
FEW = 40
"""A criterion with at most so many settings is drawn setting by setting, each a marker; one with more as a line."""
TICKS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24)


def speed_axis(axes: "Axes", furthest: float) -> None:
    """A log scale of speed-ups from 1 to the furthest, ticked in whole and half ones."""
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = [tick for tick in TICKS if tick <= max(furthest, 1.5) * 1.01]
    axes.set_xticks(ticks, [f"{tick:g}{TIMES}" for tick in ticks])
    axes.set_xlim(0.97, max(furthest, 1.5) * 1.04)


def medians(curves: Sequence[Curve]) -> list[tuple[float, float, float]]:
    """The thresholds that all seeds of a criterion have, ascending, with the medians of layer speed-up and score."""
    shared = sorted(set.intersection(*({p.threshold for p in curve.points} for curve in curves)))
    at = [[p for curve in curves for p in curve.points if p.threshold == t] for t in shared]
    return [
        (t, float(np.median([p.layer_speedup for p in points])), float(np.median([p.score for p in points])))
        for t, points in zip(shared, at, strict=True)
    ]


class Setting(NamedTuple):
    """A setting that all seeds have: medians of score and speed-up, and what a pointer is told."""

    speed: float
    score: float
    text: str


def settings_of(curves: Sequence[Curve]) -> list[Setting]:
    """The settings of one criterion's curves, at most `FEW` of them, evenly taken."""
    if not curves:
        return []
    shared = medians(curves)
    taken = shared[:: -(-len(shared) // FEW)] if shared else []
    symbol = CRITERIA[curves[0].criterion].symbol
    out = []
    for t, speed, score in taken:
        value = f"{symbol} = {t:.4g}" if np.isfinite(t) else "never"
        out.append(Setting(speed, score, f"{curves[0].criterion}, {value}: {number(100 * score)} at {times(speed)}"))
    return out


def criterion_lines(axes: "Axes", curves: Sequence[Curve], criterion: str, names: tuple[str, ...]) -> None:
    """One criterion's curve of each seed, thin, and their median, thick; `names` are all that are drawn."""
    style = look(criterion, names)
    lines = [line_of(curve) for curve in curves if curve.points]
    if len(lines) > 1:
        for line in lines:
            speeds, scores, _ = drawn(line, GRID_POINTS)
            axes.plot(speeds, 100 * scores, color=style.colour, lw=0.7, alpha=0.4)
    few = bool(lines) and max(len(curve.points) for curve in curves) <= FEW
    speeds, scores, settings = drawn(_median_by_setting(curves) if few else _median_by_speed(lines), GRID_POINTS)
    marked: dict[str, Any] = {"marker": style.marker, "markevery": settings} if few and settings else {}
    axes.plot(speeds, 100 * scores, style.dash, color=style.colour, markersize=3.5, label=criterion, **marked)


def _median_by_setting(curves: Sequence[Curve]) -> Line:
    """Median speed and score of each setting that every seed has (patience t means the same for all)."""
    shared = medians(curves)
    return by_speed([speed for _, speed, _ in shared], [score for _, _, score in shared])


def _median_by_speed(lines: Sequence[Line]) -> Line:
    """Median over seeds on a common grid of speeds, as far as every seed reaches: thresholds differ by seed."""
    if not lines:
        return np.empty(0), np.empty(0)
    low, high = max(speeds[0] for speeds, _ in lines), min(speeds[-1] for speeds, _ in lines)
    grid = np.clip(np.geomspace(low, max(low, high), GRID_POINTS), low, max(low, high))  # it rounds at its ends
    return grid, np.median([scores_at(line, grid) for line in lines], axis=0)
