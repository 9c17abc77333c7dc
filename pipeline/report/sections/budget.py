"""Score under a budget: at shares of the full model's cost, and over all of them (Zero Time Waste's and ELUE's)."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.intervals import median_interval
from pipeline.report.between import Line, line_of, scores_at
from pipeline.report.cells import Cell, Table, TableRow, in_points, model_name, runs_of, slug
from pipeline.report.numbers import number
from pipeline.report.sections.base import Section, no_early_exit
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Curve, TrialRecord

SHARES = (0.25, 0.5, 0.75, 1.0)
STEPS = 200
NOTES = (
    "Cost: layers run as a share of the plain model's, in the mean over rows. Between two settings of a curve some "
    "rows run under the one and the rest under the other. “—”: the curve does not reach so low on every seed.",
    "Area: the mean score over all costs from the lowest that every exit rule of the model reaches, named in the cell, "
    "to 100%. No setting was chosen for these numbers: they describe curves on the reported rows and promise no score.",
    "After Zero Time Waste (Wołczyk et al. 2021), Table 1, and the ELUE score (Liu et al. 2022).",
)


class Budget(Section):
    """What each exit rule scores where only so much may be spent."""

    slug = "budget"
    title = "Score under a budget"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if any(task.curves for task in stored.tasks) else [no_early_exit(stored)]

    def tables(self, stored: Stored) -> Sequence[Table]:
        columns = ("Task and model", "Exit rule", *(f"At {share:.0%}" for share in SHARES), "Area")
        return [
            Table(slug(self.slug, task.name, split), f"{task.heading(split)}: score by cost", columns,
                  tuple(_rows(task, split, stored.trials)), NOTES, names=2)
            for task in stored.tasks
            for split in task.splits
        ]  # fmt: skip


def _rows(task: TaskResults, split: str, trials: Mapping[str, TrialRecord]) -> list[TableRow]:
    curves = [curve for curve in task.curves if curve.split == split and CRITERIA[curve.criterion].causal]
    out = []
    for (backbone, method), of_model in groupby(sorted(curves, key=_model), key=_model):
        by_criterion: dict[str, list[Curve]] = {}
        for curve in of_model:
            if curve.points:
                by_criterion.setdefault(curve.criterion, []).append(curve)
        lines = {criterion: [line_of(curve) for curve in curves] for criterion, curves in by_criterion.items()}
        lowest = max((1 / line[0][-1] for several in lines.values() for line in several), default=1.0)
        group = next(group for group in task.groups if (group.backbone, group.method) == (backbone, method))
        runs = runs_of([trial.key for trial in group.trials], trials, [trial.seed for trial in group.trials])
        for criterion, several in lines.items():
            cells = (
                Cell(model_name(backbone, method)),
                Cell(CRITERIA[criterion].title),
                *(_at(several, share) for share in SHARES),
                _area(several, lowest),
            )
            out.append(TableRow(cells, runs))
    return out


def _model(curve: Curve) -> tuple[str, str]:
    return curve.backbone, curve.method


def _at(lines: Sequence[Line], share: float) -> Cell:
    scores = [float(scores_at(line, np.array([1 / share]))[0]) for line in lines]
    return Cell("—") if np.isnan(scores).any() else in_points(median_interval(scores))


def _area(lines: Sequence[Line], lowest: float) -> Cell:
    """The mean score over costs from `lowest` to 1, by the trapezoidal rule.

    Between two settings the score is linear in the cost, so the rule errs only in the steps that hold a setting.
    """
    if lowest >= 1:
        return Cell("—")
    costs = np.linspace(lowest, 1.0, STEPS + 1)
    areas = [float(np.trapezoid(scores_at(line, 1 / costs), costs) / (1 - lowest)) for line in lines]
    if np.isnan(areas).any():
        return Cell("—")
    cell = in_points(median_interval(areas))
    return Cell(cell.text, "\n".join(filter(None, (cell.detail, f"from {number(100 * lowest, 0)}%"))))
