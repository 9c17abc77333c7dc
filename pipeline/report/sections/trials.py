"""Every model that a row rests on, with the hash of its weights."""

from collections.abc import Iterator, Sequence

from pipeline.report.cells import Cell, Table, TableRow, runs_of
from pipeline.report.sections.base import NO_TASK, Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import ModelGroup

COLUMNS = ("Task", "Backbone", "Method", "Seed", "Batch size", "Learning rate", "Weights, SHA-256")


class TrainedModels(Section):
    """Texts and images alike; trials that failed are among them."""

    slug = "trials"
    title = "Trained models behind the rows"
    folded = True

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if stored.groups else [NO_TASK]

    def tables(self, stored: Stored) -> Sequence[Table]:
        rows = tuple(row for task, group in stored.groups for row in _rows(stored, task, group))
        return [Table(self.slug, self.title, COLUMNS, rows, names=3)]


def _rows(stored: Stored, task: TaskResults, group: ModelGroup) -> Iterator[TableRow]:
    names = (Cell(task.name), Cell(group.backbone), Cell(group.method))
    settings = (Cell(str(group.batch_size)), Cell(f"{group.learning_rate:g}"))
    for trial in group.trials:
        record = stored.trials.get(trial.key)
        flags = ("trained by other code",) if record and record.other_code else ()
        weights = Cell(trial.weights_sha256[:16], flags=flags)
        yield TableRow((*names, Cell(str(trial.seed)), *settings, weights), runs_of([trial.key], stored.trials))
    for failed in group.failed:
        blank = (Cell(""), Cell(""), Cell("failed", failed.reason))
        yield TableRow((*names, Cell(str(failed.seed)), *blank), runs_of([failed.key], stored.trials))
