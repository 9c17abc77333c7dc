"""Why early exit helps or hurts: one row per trained method, task and split."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from pipeline.report.cells import Cell, Table, TableRow, model_name, runs_of
from pipeline.report.numbers import number, points, signed, times
from pipeline.report.sections.base import Section, no_early_exit
from pipeline.report.stored import Stored, TaskResults
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
    """Overthinking, the oracle, agreement, calibration, and rows that each criterion loses and wins."""

    slug = "diagnosis"
    title = "Diagnosis"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if any(task.evaluated.diagnosis for task in stored.tasks) else [no_early_exit(stored)]

    def tables(self, stored: Stored) -> Sequence[Table]:
        every = [model for task in stored.tasks for model in task.evaluated.diagnosis]
        criteria = list(dict.fromkeys(outcome.criterion for model in every for outcome in model.criteria))
        rows = tuple(row for task in stored.tasks for row in _rows(task, criteria, stored.trials))
        columns = (*HEADS, *(f"Lost, won by {name}" for name in criteria))
        return [Table(self.slug, self.title, columns, rows, NOTES, names=2)]


def _rows(task: TaskResults, criteria: Sequence[str], trials: Mapping[str, TrialRecord]) -> list[TableRow]:
    rows = []
    for (split, backbone, method), of_seeds in groupby(sorted(task.evaluated.diagnosis, key=_model), key=_model):
        models = list(of_seeds)
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
