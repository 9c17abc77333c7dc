"""Every model that a row rests on, with the hash of its weights, and the search that chose its grid point."""

from collections.abc import Iterator, Sequence

from pipeline.report.cells import Cell, Table, TableRow, runs_of
from pipeline.report.numbers import count, number
from pipeline.report.sections.base import NO_TASK, Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import ModelGroup

COLUMNS = ("Task", "Backbone", "Method", "Seed", "Batch size", "Learning rate", "Weights, SHA-256")
SEARCHED = ("Task", "Backbone", "Method", "Search", "Points", "Stopped", "Epochs trained", "Saved at most",
            "Batch size", "Learning rate", "Selection score")  # fmt: skip
NOTES = (
    "A stopped point cannot be chosen. Saved are the epochs that stopped points had left, at most: they might have "
    "stopped by themselves. The paper trains every point to its end.",
)


class TrainedModels(Section):
    """Texts and images alike; trials that failed are among them."""

    slug = "trials"
    title = "Trained models behind the rows"
    folded = True

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if stored.groups else [NO_TASK]

    def tables(self, stored: Stored) -> Sequence[Table]:
        rows = tuple(row for task, group in stored.groups for row in _rows(stored, task, group))
        searches = tuple(_search(stored, task, group) for task, group in stored.groups)
        return [
            Table(self.slug, self.title, COLUMNS, rows, names=3),
            Table("searches", "Searches of the grids", SEARCHED, searches, NOTES, names=4),
        ]


def _rows(stored: Stored, task: TaskResults, group: ModelGroup) -> Iterator[TableRow]:
    names = (Cell(task.name), Cell(group.backbone), _method(group))
    settings = (Cell(str(group.batch_size)), Cell(f"{group.learning_rate:g}"))
    for trial in group.trials:
        record = stored.trials.get(trial.key)
        flags = ("trained by other code",) if record and record.other_code else ()
        weights = Cell(trial.weights_sha256[:16], flags=flags)
        yield TableRow((*names, Cell(str(trial.seed)), *settings, weights), runs_of([trial.key], stored.trials))
    for failed in group.failed:
        blank = (Cell(""), Cell(""), Cell("failed", failed.reason))
        yield TableRow((*names, Cell(str(failed.seed)), *blank), runs_of([failed.key], stored.trials))


def _method(group: ModelGroup) -> Cell:
    """The entry of `methods`, with what it is where that is not its name."""
    regime = " ".join(f"{name} {value}" for name, value in group.regime.items())
    return Cell(group.method + (f" ({regime})" if regime else ""))


def _search(stored: Stored, task: TaskResults, group: ModelGroup) -> TableRow:
    search = group.search
    names = (Cell(task.name), Cell(group.backbone), _method(group), Cell(search.method))
    counts = (len(group.grid), search.stopped, search.epochs, search.epochs_saved)
    chosen = group.point
    found = (Cell(str(chosen.batch_size)), Cell(f"{chosen.learning_rate:g}"), Cell(number(chosen.selection, 4)))
    return TableRow((*names, *(Cell(count(value)) for value in counts), *found), runs_of([chosen.key], stored.trials))
