"""Why early exit helps or hurts: one row per trained method, task and split."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from pipeline.report.cells import Cell, Table, TableRow, model_name, runs_of, slug
from pipeline.report.classes import recall_table
from pipeline.report.numbers import number, points, signed, times
from pipeline.report.paying import best_of, deals
from pipeline.report.sections.base import Section, no_early_exit
from pipeline.report.stored import Stored, TaskResults
from pipeline.report.svg import Panel, Plot, canvas, look
from pipeline.results import Diagnosis as OfModel
from pipeline.results import TrialRecord

HEADS = ("Task", "Model", "Overthinking", "Oracle: score", "Oracle: layer ratio", "Exits 1 and last agree",
         "ECE, first exit", "ECE, last exit")  # fmt: skip
NOTES = (
    "Medians over seeds, in points. Overthinking: rows that some exit has right and the last wrong. Oracle: leave at "
    "the first exit that is right (a regression: at the first as near as the last).",
    "ECE: expected calibration error, accuracy against confidence in 15 bins. Lost: wrong under the exit rule at its "
    "operating point and right at the last exit; won: the reverse.",
)


class Diagnosis(Section):
    """Overthinking, the oracle, agreement, calibration, what each criterion loses and wins, and recall by class."""

    slug = "diagnosis"
    title = "Diagnosis"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if any(task.early_exits for task in stored.tasks) else [no_early_exit(stored)]

    def plots(self, stored: Stored) -> Sequence[Plot]:
        panels = [_panel(task, models) for task in stored.tasks for models in _by_model(task)]
        return [
            Plot(
                "exits",
                "Where rows leave",
                "Share of the rows that leave at each exit under each exit rule at its operating point, of all seeds.",
                tuple(panels),
            )
        ]

    def tables(self, stored: Stored) -> Sequence[Table]:
        every = [model for task in stored.tasks for model in task.early_exits]
        criteria = list(dict.fromkeys(outcome.criterion for model in every for outcome in model.criteria))
        rows = tuple(row for task in stored.tasks for row in _rows(task, criteria, stored.trials))
        columns = (*HEADS, *(f"Lost, won by {name}" for name in criteria))
        of_classes = recall_table(best_of(deals(stored.tasks)), stored.trials)
        return [Table(self.slug, self.title, columns, rows, NOTES, names=2), of_classes]


def _by_model(task: TaskResults) -> list[list[OfModel]]:
    """The models of each split and trained method, a seed each."""
    return [list(models) for _, models in groupby(sorted(task.early_exits, key=_model), key=_model)]


def _panel(task: TaskResults, models: Sequence[OfModel]) -> Panel:
    first = models[0]
    names = tuple(outcome.criterion for outcome in first.criteria)
    title = f"{task.heading(first.split)}: {model_name(first.backbone, first.method)}"
    name = slug("exits", task.name, first.split, first.backbone, first.method)
    with canvas(name, f"Share of rows by the layer at which they leave on {title}, for {', '.join(names)}.") as drawing:
        axes = drawing.axes[0]
        for criterion in names:
            counts = [model.outcome(criterion).exits for model in models]
            shares = [100 * sum(of_seed) / sum(map(sum, counts)) for of_seed in zip(*counts, strict=True)]
            style = look(criterion, names)
            axes.plot(first.layers, shares, style.dash, color=style.colour, marker=style.marker, markersize=4,
                      label=criterion)  # fmt: skip
            for layer, share in zip(first.layers, shares, strict=True):
                drawing.spot(axes, layer, share, f"{criterion}: {number(share)}% leave after layer {layer:g}")
        axes.set(xlabel="exit after layer", ylabel="rows that leave (%)")
        axes.set_xticks(first.layers if len(first.layers) <= 12 else first.layers[1::2])
        axes.set_ylim(bottom=0)
        return drawing.finish(title)


def _rows(task: TaskResults, criteria: Sequence[str], trials: Mapping[str, TrialRecord]) -> list[TableRow]:
    rows = []
    for models in _by_model(task):
        split, backbone, method = _model(models[0])
        cells = (
            Cell(task.heading(split)),
            Cell(model_name(backbone, method)),
            _points(models, lambda d: d.overthinking.share if d.overthinking else None),
            _points(models, lambda d: d.oracle.score),
            Cell(times(_median(models, lambda d: d.oracle.layer_speedup))),
            _points(models, lambda d: d.agreement[0][-1] if d.agreement else None),
            _points(models, lambda d: d.calibration.error[0] if d.calibration else None),
            _points(models, lambda d: d.calibration.error[-1] if d.calibration else None),
            *(_lost_and_won(models, name) for name in criteria),
        )
        rows.append(TableRow(cells, runs_of([d.key for d in models], trials, [d.seed for d in models])))
    return rows


def _model(diagnosis: OfModel) -> tuple[str, str, str]:
    return diagnosis.split, diagnosis.backbone, diagnosis.method


def _median(models: Sequence[OfModel], part: Callable[[OfModel], float | None]) -> float | None:
    """The median over seeds; not defined as soon as one seed's is not."""
    values = [value for value in map(part, models) if value is not None]
    return statistics.median(values) if len(values) == len(models) else None


def _points(models: Sequence[OfModel], part: Callable[[OfModel], float | None]) -> Cell:
    return Cell(number(points(_median(models, part))))


def _lost_and_won(models: Sequence[OfModel], criterion: str) -> Cell:
    def lost(model: OfModel) -> float | None:
        return next((o.lost.share for o in model.criteria if o.criterion == criterion and o.lost), None)

    def won(model: OfModel) -> float | None:
        return next((o.won.share for o in model.criteria if o.criterion == criterion and o.won), None)

    less, more = _median(models, lost), _median(models, won)
    if less is None or more is None:
        return Cell(number(None))
    return Cell(f"{signed(-100 * less)}, {signed(100 * more)}")
