"""Figures 3 and 4, and the score of each exit: one panel per task, split and trained method."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.cells import model_name, slug
from pipeline.report.choices import mark, marked
from pipeline.report.numbers import TIMES
from pipeline.report.stored import Curve, Evaluated, Exits, Result
from pipeline.report.svg import INK, KNOWN, MUTED, Panel, Plot, canvas, look
from pipeline.report.verdicts import PLAIN, by_speed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID_POINTS = 80
FEW = 40
"""A criterion with at most so many settings is drawn setting by setting, each a marker; one with more as a line."""
TICKS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24)


def panels_of(results: Sequence[Evaluated]) -> Iterator[tuple[Evaluated, str, list[Curve]]]:
    """Each panel's title and the curves in it: those of one task, report split, backbone and method."""
    for result in results:
        splits = result.splits()
        kept = [curve for curve in result.curves if curve.split in splits]
        kept.sort(key=lambda c: (c.task, c.split, c.backbone, c.method))
        for (task, split, backbone, method), curves in groupby(
            kept, key=lambda c: (c.task, c.split, c.backbone, c.method)
        ):
            where = task if len(splits) == 1 else f"{task} {split}"
            yield result, f"{where}: {model_name(backbone, method)}", list(curves)


def figure_3(results: Sequence[Evaluated], name: str, title: str) -> Plot:
    """Speed-accuracy curves: one line per criterion, a point where it was set to operate."""
    panels = tuple(_speed_panel(result, text, curves, name) for result, text, curves in panels_of(results))
    return Plot(
        name,
        title,
        "Score against speed-up in layers (log scale). Thick: the median over seeds; thin: each seed. A ringed marker "
        f"is the operating point, {marked(results)}. Dashed grey: the same model through all layers; "
        "dotted: the plainly trained model.",
        panels,
    )


def _speed_panel(result: Evaluated, title: str, curves: Sequence[Curve], name: str) -> Panel:
    first = curves[0]
    criteria = tuple(dict.fromkeys(curve.criterion for curve in curves))
    about = f"Score against layer speed-up on {title}, for {', '.join(criteria)}."
    with canvas(slug(name, first.task, first.split, first.backbone, first.method), about) as drawn:
        axes = drawn.axes[0]
        mark(axes, result, "x")
        _baselines(axes, result, first)
        for criterion in criteria:
            criterion_lines(axes, [c for c in curves if c.criterion == criterion], criterion, criteria)
            _operating_point(axes, result, first, criterion, criteria)
        furthest = max((p.layer_speedup for c in curves for p in c.points), default=1.0)
        speed_axis(axes, furthest)
        axes.set(xlabel="speed-up (layers in all / layers run)", ylabel="score (points)")
        return drawn.finish(title)


def speed_axis(axes: "Axes", furthest: float) -> None:
    """A log scale of speed-ups from 1 to the furthest, ticked in whole and half ones."""
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = [tick for tick in TICKS if tick <= max(furthest, 1.5) * 1.01]
    axes.set_xticks(ticks, [f"{tick:g}{TIMES}" for tick in ticks])
    axes.set_xlim(0.97, max(furthest, 1.5) * 1.04)


def criterion_lines(axes: "Axes", curves: Sequence[Curve], criterion: str, names: tuple[str, ...]) -> None:
    """One criterion's curve of each seed, thin, and their median, thick; `names` are all that are drawn."""
    style = look(criterion, names)
    drawn = [by_speed(curve) for curve in curves if curve.points]
    if len(drawn) > 1:
        for speeds, scores in drawn:
            axes.plot(speeds, 100 * scores, color=style.colour, lw=0.7, alpha=0.4)
    few = bool(drawn) and max(len(curve.points) for curve in curves) <= FEW
    speeds, scores = _median_by_setting(curves) if few else _median_by_speed(drawn)
    marker = style.marker if few else ""
    axes.plot(speeds, 100 * scores, style.dash, color=style.colour, marker=marker, markersize=3.5, label=criterion)


def _median_by_setting(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Median speed and score of each setting that every seed has (patience t means the same for all)."""
    shared = set.intersection(*({p.threshold for p in curve.points} for curve in curves))
    at = {t: [p for curve in curves for p in curve.points if p.threshold == t] for t in sorted(shared)}
    speeds = np.array([np.median([p.layer_speedup for p in found]) for found in at.values()])
    scores = np.array([np.median([p.score for p in found]) for found in at.values()])
    return speeds, scores


def _median_by_speed(drawn: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Median over seeds on a common grid of speeds, as far as every seed reaches: thresholds differ by seed."""
    if not drawn:
        return np.empty(0), np.empty(0)
    low, high = max(speeds[0] for speeds, _ in drawn), min(speeds[-1] for speeds, _ in drawn)
    grid = np.geomspace(low, max(low, high), GRID_POINTS)
    return grid, np.median([np.interp(grid, speeds, scores) for speeds, scores in drawn], axis=0)


def _rows_like(result: Evaluated, first: Curve) -> list[Result]:
    return [r for r in result.rows if (r.task, r.split, r.backbone) == (first.task, first.split, first.backbone)]


def _operating_point(axes: "Axes", result: Evaluated, first: Curve, criterion: str, names: tuple[str, ...]) -> None:
    for row in _rows_like(result, first):
        speed, score = row.layer_speedup.centre, row.score.centre
        if (row.method, row.criterion) != (first.method, criterion) or speed is None or score is None:
            continue
        style = look(criterion, names)
        axes.plot(
            [speed],
            [100 * score],
            style.marker,
            color=style.colour,
            markersize=9,
            markeredgecolor=INK,
            markeredgewidth=1.3,
            zorder=5,
        )


def _baselines(axes: "Axes", result: Evaluated, first: Curve) -> None:
    """The full model of the same training, and the plainly trained one, as lines."""
    for row in _rows_like(result, first):
        if row.criterion is not None or row.score.centre is None:
            continue
        if row.method == first.method:
            axes.axhline(100 * row.score.centre, color=MUTED, ls="--", lw=1.1, label="all layers")
        elif row.method in PLAIN:
            axes.axhline(100 * row.score.centre, color=KNOWN["single exit"].colour, ls=":", lw=1.4, label="single exit")


def figure_4(results: Sequence[Evaluated]) -> Plot:
    """Score and speed-up under each patience."""
    panels = []
    for result, title, curves in panels_of(results):
        mine = [curve for curve in curves if curve.criterion == "patience"]
        if mine:
            panels.append(_patience_panel(result, title, mine))
    return Plot(
        "figure-4",
        "Figure 4: score and speed-up under patience t",
        "Above: score; below: speed-up in layers. Thick: the median over seeds; thin: each seed. Dashed grey: the same "
        "model through all layers. The earliest exit under patience t is layer t + 1.",
        tuple(panels),
    )


def _patience_panel(result: Evaluated, title: str, curves: Sequence[Curve]) -> Panel:
    first, style = curves[0], look("patience")
    name = slug("figure-4", first.task, first.split, first.backbone, first.method)
    with canvas(name, f"Score and layer speed-up against patience on {title}.", 3.6, (3, 2)) as drawn:
        above, below = drawn.axes
        _baselines(above, result, first)
        series = [[p for p in curve.points if np.isfinite(p.threshold)] for curve in curves]
        for points in series if len(series) > 1 else ():
            patience = [p.threshold for p in points]
            above.plot(patience, [100 * p.score for p in points], color=style.colour, lw=0.7, alpha=0.4)
            below.plot(patience, [p.layer_speedup for p in points], color=style.colour, lw=0.7, alpha=0.4)
        shared = sorted(set.intersection(*({p.threshold for p in points} for points in series)))
        at = [[p for points in series for p in points if p.threshold == t] for t in shared]
        scores = [100 * float(np.median([p.score for p in found])) for found in at]
        speeds = [float(np.median([p.layer_speedup for p in found])) for found in at]
        above.plot(shared, scores, color=style.colour, marker="o", markersize=4, label="patience")
        below.plot(shared, speeds, color=style.colour, marker="o", markersize=4)
        mark(below, result, "y", label=True)
        below.set_yscale("log")
        below.minorticks_off()
        below.set_yticks([1, 2, 4, 8], [f"{tick}{TIMES}" for tick in (1, 2, 4, 8)])
        above.set(ylabel="score (points)")
        below.set(xlabel="patience t (agreements in a row)", ylabel="speed-up (layers)")
        below.set_xticks(shared)
        return drawn.finish(title, 2)


def depth_figure(results: Sequence[Evaluated], name: str = "depth") -> Plot:
    """The score of each exit taken alone."""
    panels = []
    for result in results:
        splits = result.splits()
        kept = sorted((e for e in result.exits if e.split in splits), key=_same_panel)
        for key, found in groupby(kept, key=_same_panel):
            exits = list(found)
            if len(exits[0].layers) > 1:
                where = key[0] if len(splits) == 1 else f"{key[0]} {key[1]}"
                panels.append(_depth_panel(f"{where}: {model_name(*key[2:])}", exits, result, name))
    return Plot(
        name,
        "Score by exit depth",
        "Each exit taken alone, on report rows: where the line falls again, deeper layers unlearn what shallower ones "
        "had (overthinking). Thick: the median over seeds; thin: each seed. Dotted: the plainly trained model.",
        tuple(panels),
    )


def _same_panel(exits: Exits) -> tuple[str, str, str, str]:
    return exits.task, exits.split, exits.backbone, exits.method


def _depth_panel(title: str, exits: Sequence[Exits], result: Evaluated, name: str) -> Panel:
    first = exits[0]
    with canvas(slug(name, *_same_panel(first)), f"Score of each exit by its layer on {title}.", 2.7) as drawn:
        axes = drawn.axes[0]
        table = np.array([[np.nan if s is None else 100 * s for s in e.scores] for e in exits])
        for scores in table if len(table) > 1 else ():
            axes.plot(first.layers, scores, color=INK, lw=0.7, alpha=0.4)
        axes.plot(first.layers, np.median(table, axis=0), color=INK, marker="o", markersize=4, label="exit alone")
        for row in result.rows:
            plain = row.method in PLAIN and row.score.centre is not None
            if plain and (row.task, row.split, row.backbone) == (first.task, first.split, first.backbone):
                style = KNOWN["single exit"]
                axes.axhline(100 * (row.score.centre or 0), color=style.colour, ls=":", lw=1.4, label="single exit")
        axes.set(xlabel="exit after layer", ylabel="score (points)")
        axes.set_xticks(first.layers if len(first.layers) <= 12 else first.layers[1::2])
        return drawn.finish(title)
