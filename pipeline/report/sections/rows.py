"""Every row in full: one table per task and report split, ours beside the paper's."""

from collections.abc import Sequence

from pipeline.report import paper
from pipeline.report.cells import Cell, Table, TableRow, flags_of, in_points, ratio, row_id, row_name, runs_of, slug
from pipeline.report.choices import aim
from pipeline.report.numbers import bounds, count, number, setting, signed, times
from pipeline.report.sections.base import NO_TASK, Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Interval, Row

HEADS = ("Model and exit rule", "Setting", "Parameters", "Layer ratio", "FLOP ratio", "Score")


class EveryRow(Section):
    """Every model and criterion at its operating point."""

    slug = "rows"
    title = "Every row, task by task"

    def not_run(self, stored: Stored) -> Sequence[str]:
        return [] if stored.tasks else [NO_TASK]

    def tables(self, stored: Stored) -> Sequence[Table]:
        return [_table(stored, task, split) for task in stored.tasks for split in task.splits]


def _table(stored: Stored, task: TaskResults, split: str) -> Table:
    rows = [row for row in task.rows if row.split == split]
    metrics = tuple(rows[0].metrics) if len(rows[0].metrics) > 1 else ()
    in_paper = paper.has_task(task.name)
    timed = any(row.cost_ms for row in rows)
    columns = (
        *HEADS,
        *metrics,
        *(("Lost",) if rows[0].risk is not None else ()),
        *(("Expected, ms",) if timed else ()),
        "Seeds",
        *(("Paper: score", "Paper: layer ratio") if in_paper else ()),
    )
    table_rows = tuple(_table_row(stored, task, row, metrics, in_paper, timed) for row in rows)
    title = task.heading(split)
    return Table(slug("task", task.name, split), title, columns, table_rows, _notes(task, rows, in_paper), names=2)


def _notes(task: TaskResults, rows: Sequence[Row], in_paper: bool) -> tuple[str, ...]:
    metrics = list(rows[0].metrics)
    notes = [
        f"Split: {rows[0].split}. Metric{'s'[: len(metrics) != 1]}: {', '.join(metrics)}. Settings were chosen for "
        f"{aim(task)}, one per seed.",
    ]
    if task.image:
        notes.append("A layer is a residual block of two convolutions.")
    if task.train_rows is not None:
        unit = "images" if task.image else "rows"
        notes.append(f"Trained on {task.train_rows:,} {unit}{'; the paper used all' if in_paper else ''}.")
    if not in_paper:
        notes.append("The paper has no figure for this task.")
    if task.regression:
        notes.append("Exit rules without a meaning for a regression, such as confidence and entropy, have no row.")
    return tuple(notes)


def _table_row(
    stored: Stored, task: TaskResults, row: Row, metrics: Sequence[str], in_paper: bool, timed: bool
) -> TableRow:
    group = task.group(row)
    beside = paper.beside(task.name, row.backbone, group.layers, (row.method, row.criterion))
    cells = (
        Cell(row_name(row.method, row.criterion, multi_exit=group.multi_exit), row.backbone, beside.label),
        Cell(setting(row.points, regression=task.regression)),
        Cell(count(group.parameters)),
        ratio(row.layer_speedup),
        ratio(row.flop_speedup),
        in_points(row.score, flags=flags_of(task, row)),
        *(in_points(row.metrics[name]) for name in metrics),
        *((in_points(row.risk),) if row.risk else ()),
        *((_milliseconds(row),) if timed else ()),
        Cell(str(len(row.seeds)), f"{len(group.failed)} failed" if group.failed else ""),
    )
    if in_paper:
        speed = times(beside.speedup) if beside.label else beside.text
        cells += (Cell(beside.text, _difference(row.score, beside.value)), Cell(speed))
    return TableRow(cells, runs_of(row.keys, stored.trials, row.seeds), anchor=row_id(task, row))


def _difference(ours: Interval, printed: float | None) -> str:
    """Ours minus the paper's, in points."""
    if printed is None or ours.centre is None:
        return ""
    return f"ours {signed(100 * ours.centre - printed)}"


def _milliseconds(row: Row) -> Cell:
    """The time that the measured costs of exits make of a row's exits; none of a model without early exits."""
    if row.cost_ms is None:
        return Cell("\u2014")
    return Cell(number(row.cost_ms.centre, 2), bounds(row.cost_ms, 2) if row.cost_ms.low != row.cost_ms.high else "")
