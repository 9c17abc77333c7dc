"""Table 6: image tasks, ours beside the paper's residual networks."""

from collections.abc import Sequence

from pipeline.report import paper
from pipeline.report.cells import (
    Cell,
    Table,
    TableRow,
    flags_of,
    in_points,
    ratio,
    row_id,
    row_name,
    runs_of,
    seeds_note,
)
from pipeline.report.choices import aims
from pipeline.report.numbers import count, setting, times
from pipeline.report.sections.base import Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Row

COLUMNS = ("Task", "Network and exit rule", "Setting", "Parameters", "Layer ratio", "FLOP ratio", "Accuracy", "Seeds",
           "Paper: accuracy", "Paper: layer ratio")  # fmt: skip


class Images(Section):
    """Every network and criterion of every image task."""

    slug = "images"
    title = "Image classification (Table 6)"

    def not_run(self, stored: Stored) -> Sequence[str]:
        if not stored.images:
            return [
                "no image task under tasks in params.yaml; add one, such as cifar10, and a backbone for it, such as "
                "resnet56"
            ]
        return []

    def tables(self, stored: Stored) -> Sequence[Table]:
        rows = [(task, row) for task in stored.images for row in task.rows]
        notes = []
        if rows:
            notes = [
                f"A layer is a residual block of two convolutions. Settings were chosen for {aims(stored.images)}.",
                seeds_note(row for _, row in rows),
                *(
                    f"{task.name}: trained on {task.train_rows:,} images."
                    for task in stored.images
                    if task.train_rows is not None
                ),
            ]
        table_rows = tuple(_row(stored, task, row) for task, row in rows)
        return [Table(self.slug, self.title, COLUMNS, table_rows, tuple(notes), names=3)]


def _row(stored: Stored, task: TaskResults, row: Row) -> TableRow:
    group = task.group(row)
    beside = paper.beside(task.name, row.backbone, group.layers, (row.method, row.criterion))
    cells = (
        Cell(task.heading(row.split)),
        Cell(row_name(row.method, row.criterion, multi_exit=group.multi_exit), row.backbone, beside.label),
        Cell(setting(row.points, regression=task.regression)),
        Cell(count(group.parameters)),
        ratio(row.layer_speedup),
        ratio(row.flop_speedup),
        in_points(row.score, flags=flags_of(task, row), link=row_id(task, row)),
        Cell(str(len(row.seeds)), f"{len(group.failed)} failed" if group.failed else ""),
        Cell(beside.text),
        Cell(times(beside.speedup) if beside.label else beside.text),
    )
    return TableRow(cells, runs_of(row.keys, stored.trials, row.seeds))
