"""Training cost: parameters that exits add, and training time until the best checkpoint (Table 3)."""

import statistics
from collections.abc import Mapping, Sequence

from pipeline.report import paper
from pipeline.report.cells import Cell, Table, TableRow, runs_of
from pipeline.report.numbers import count, duration, number
from pipeline.report.sections.base import NO_TASK, Section
from pipeline.report.stored import Stored
from pipeline.results import ModelGroup, TrialRecord

COLUMNS = ("Task", "Backbone", "Method", "Parameters", "Added by exits", "Time to best", "Time in all", "Best epoch",
           "Paper: parameters", "Paper: time to best")  # fmt: skip
NOTES = (
    "Medians over the selected trials; times are this machine's and are comparable within this table only. The paper's "
    "are minutes on one V100.",
    "A method that starts from another's model (two_stage) counts its own training only.",
)


class TrainingCost(Section):
    """One row per task, backbone and method."""

    slug = "cost"
    title = "Training cost (Table 3)"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if stored.groups else [NO_TASK]

    def tables(self, stored: Stored) -> Sequence[Table]:
        rows = tuple(_row(task.name, group, stored.trials) for task, group in stored.groups)
        return [Table(self.slug, self.title, COLUMNS, rows, NOTES, names=3)]


def _row(task: str, group: ModelGroup, trials: Mapping[str, TrialRecord]) -> TableRow:
    keys = [trial.key for trial in group.trials]
    took = [trials[key] for key in keys if key in trials]
    printed = paper.COST.get((group.backbone, group.method, task))
    if paper.LAYERS.get(group.backbone) != group.layers:
        printed = None
    cells = (
        Cell(task),
        Cell(group.backbone),
        Cell(group.method),
        Cell(count(group.parameters)),
        Cell(count(group.early_exit_parameters) if group.multi_exit else "none"),
        Cell(duration(_median([trial.train_seconds_to_best for trial in took]))),
        Cell(duration(_median([trial.train_seconds for trial in took]))),
        Cell(number(_median([trial.best_epoch for trial in took]), 0)),
        Cell(printed.parameters if printed else paper.NONE),
        Cell(f"{printed.minutes} min" if printed else paper.NONE),
    )
    return TableRow(cells, runs_of(keys, trials, [trial.seed for trial in group.trials]))


def _median(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return statistics.median(defined) if defined else None
