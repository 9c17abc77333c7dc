"""Figures 3 and 4, and the score of each exit: one panel per task, split and trained method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.cells import model_name, row_id, slug, spoken
from pipeline.report.choices import mark, marked
from pipeline.report.lines import criterion_lines, medians, settings_of, speed_axis
from pipeline.report.numbers import TIMES, number, times
from pipeline.report.sections.base import Section, no_early_exit
from pipeline.report.stored import SINGLE_EXIT, Stored, TaskResults
from pipeline.report.svg import INK, KNOWN, MUTED, Canvas, Panel, Plot, canvas, look
from pipeline.results import Curve, ExitScores, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SpeedAndScore(Section):
    """What a criterion gives at every setting, and an exit alone."""

    slug = "curves"
    title = "Speed and score"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if any(task.curves for task in stored.tasks) else [no_early_exit(stored)]

    def plots(self, stored: Stored) -> Sequence[Plot]:
        return [_figure_3(stored.tasks), _figure_4(stored.tasks), _depth(stored.tasks)]


@dataclass(frozen=True)
class Place:
    """What a panel is about: one trained method on one reported split of a task."""

    task: TaskResults
    split: str
    backbone: str
    method: str

    @property
    def title(self) -> str:
        return f"{self.task.heading(self.split)}: {model_name(self.backbone, self.method)}"

    def name(self, figure: str) -> str:
        """Of the panel's file."""
        return slug(figure, self.task.name, self.split, self.backbone, self.method)

    @property
    def rows(self) -> list[Row]:
        """Rows of the same backbone and split, of every method."""
        return [row for row in self.task.rows if (row.split, row.backbone) == (self.split, self.backbone)]


def _places(tasks: Sequence[TaskResults]) -> Iterator[tuple[Place, list[Curve]]]:
    """Each panel's place and the curves in it."""
    for task in tasks:
        splits = task.splits
        reported = [curve for curve in task.curves if curve.split in splits]
        reported.sort(key=_place_of)
        for key, curves in groupby(reported, key=_place_of):
            yield Place(task, *key), list(curves)


def _place_of(part: Curve | ExitScores) -> tuple[str, str, str]:
    return part.split, part.backbone, part.method


def _figure_3(tasks: Sequence[TaskResults]) -> Plot:
    """Speed-accuracy curves: one line per criterion, a point where it was set to operate."""
    return Plot(
        "figure-3",
        "Figure 3: speed-accuracy curves",
        "Score against speed-up in layers (log scale). Thick: the median over seeds; thin: each seed. A ringed marker "
        f"is the operating point, {marked(tasks)}. Dashed grey: the same model through all layers; "
        "dotted: the plainly trained model.",
        tuple(_speed_panel(place, curves) for place, curves in _places(tasks)),
    )


def _speed_panel(place: Place, curves: Sequence[Curve]) -> Panel:
    criteria = tuple(dict.fromkeys(curve.criterion for curve in curves))
    caption = f"Score against layer speed-up on {place.title}, for {', '.join(criteria)}."
    with canvas(place.name("figure-3"), caption) as drawing:
        axes = drawing.axes[0]
        mark(axes, place.task.evaluated.choosing, "x")
        _baselines(axes, place)
        for criterion in criteria:
            criterion_lines(axes, [c for c in curves if c.criterion == criterion], criterion, criteria)
            for at in settings_of([c for c in curves if c.criterion == criterion]):
                drawing.spot(axes, at.speed, 100 * at.score, at.text)
        for criterion in criteria:  # above the lines, and last, so that a pointer finds it first
            _operating_point(drawing, place, criterion, criteria)
        furthest = max((p.layer_speedup for c in curves for p in c.points), default=1.0)
        speed_axis(axes, furthest)
        axes.set(xlabel="speed-up (layers in all / layers run)", ylabel="score (points)")
        return drawing.finish(place.title)


def _operating_point(drawing: Canvas, place: Place, criterion: str, names: tuple[str, ...]) -> None:
    axes = drawing.axes[0]
    for row in place.rows:
        speed, score = row.layer_speedup.centre, row.score.centre
        if (row.method, row.criterion) != (place.method, criterion) or speed is None or score is None:
            continue
        style = look(criterion, names)
        ring: dict[str, Any] = {"markersize": 9, "markeredgecolor": INK, "markeredgewidth": 1.3, "zorder": 5}
        axes.plot([speed], [100 * score], style.marker, color=style.colour, **ring)
        drawing.spot(axes, speed, 100 * score, spoken(place.task, row), row_id(place.task, row))


def _baselines(axes: "Axes", place: Place) -> None:
    """The full model of the same training, and the plainly trained one, as lines."""
    for row in place.rows:
        if row.criterion is not None or row.score.centre is None:
            continue
        if row.method == place.method:
            axes.axhline(100 * row.score.centre, color=MUTED, ls="--", lw=1.1, label="all layers")
        elif row.method == SINGLE_EXIT:
            axes.axhline(100 * row.score.centre, color=KNOWN["single exit"].colour, ls=":", lw=1.4, label="single exit")


def _figure_4(tasks: Sequence[TaskResults]) -> Plot:
    """Score and speed-up under each patience."""
    panels = []
    for place, curves in _places(tasks):
        patience = [curve for curve in curves if curve.criterion == "patience"]
        if patience:
            panels.append(_patience_panel(place, patience))
    return Plot(
        "figure-4",
        "Figure 4: score and speed-up under patience t",
        "Above: score; below: speed-up in layers. Thick: the median over seeds; thin: each seed. Dashed grey: the same "
        "model through all layers. The earliest exit under patience t is layer t + 1.",
        tuple(panels),
    )


def _patience_panel(place: Place, curves: Sequence[Curve]) -> Panel:
    style = look("patience")
    caption = f"Score and layer speed-up against patience on {place.title}."
    with canvas(place.name("figure-4"), caption, 3.6, (3, 2)) as drawing:
        above, below = drawing.axes
        _baselines(above, place)
        series = [[p for p in curve.points if np.isfinite(p.threshold)] for curve in curves]
        for points in series if len(series) > 1 else ():
            patience = [p.threshold for p in points]
            above.plot(patience, [100 * p.score for p in points], color=style.colour, lw=0.7, alpha=0.4)
            below.plot(patience, [p.layer_speedup for p in points], color=style.colour, lw=0.7, alpha=0.4)
        finite = [setting for setting in medians(curves) if np.isfinite(setting[0])]
        shared, speeds = [t for t, _, _ in finite], [speed for _, speed, _ in finite]
        scores = [100 * score for _, _, score in finite]
        above.plot(shared, scores, color=style.colour, marker="o", markersize=4, label="patience")
        below.plot(shared, speeds, color=style.colour, marker="o", markersize=4)
        for t, score, speed in zip(shared, scores, speeds, strict=True):
            text = f"patience {t:g}: {number(score)} at {times(speed)}"
            drawing.spot(above, t, score, text)
            drawing.spot(below, t, speed, text)
        mark(below, place.task.evaluated.choosing, "y", label=True)
        below.set_yscale("log")
        below.minorticks_off()
        below.set_yticks([1, 2, 4, 8], [f"{tick}{TIMES}" for tick in (1, 2, 4, 8)])
        above.set(ylabel="score (points)")
        below.set(xlabel="patience t (agreements in a row)", ylabel="speed-up (layers)")
        below.set_xticks(shared)
        return drawing.finish(place.title, 2)


def _depth(tasks: Sequence[TaskResults]) -> Plot:
    """The score of each exit taken alone."""
    panels = []
    for task in tasks:
        splits = task.splits
        reported = sorted((e for e in task.evaluated.exits if e.split in splits), key=_place_of)
        for key, of_seeds in groupby(reported, key=_place_of):
            exits = list(of_seeds)
            if len(exits[0].layers) > 1:
                panels.append(_depth_panel(Place(task, *key), exits))
    return Plot(
        "depth",
        "Score by exit depth",
        "Each exit taken alone, on report rows: where the line falls again, deeper layers unlearn what shallower ones "
        "had (overthinking). Thick: the median over seeds; thin: each seed. Dotted: the plainly trained model.",
        tuple(panels),
    )


def _depth_panel(place: Place, exits: Sequence[ExitScores]) -> Panel:
    layers = exits[0].layers
    with canvas(place.name("depth"), f"Score of each exit by its layer on {place.title}.", 2.7) as drawing:
        axes = drawing.axes[0]
        table = np.array([[np.nan if s is None else 100 * s for s in e.scores] for e in exits])
        for scores in table if len(table) > 1 else ():
            axes.plot(layers, scores, color=INK, lw=0.7, alpha=0.4)
        middle = np.median(table, axis=0)
        axes.plot(layers, middle, color=INK, marker="o", markersize=4, label="exit alone")
        for layer, score in zip(layers, middle.tolist(), strict=True):
            if score == score:
                drawing.spot(axes, layer, score, f"exit after layer {layer}: {number(score)}")
        for row in place.rows:
            if row.method == SINGLE_EXIT and row.score.centre is not None:
                style = KNOWN["single exit"]
                axes.axhline(100 * row.score.centre, color=style.colour, ls=":", lw=1.4, label="single exit")
        axes.set(xlabel="exit after layer", ylabel="score (points)")
        axes.set_xticks(layers if len(layers) <= 12 else layers[1::2])
        return drawing.finish(place.title)
