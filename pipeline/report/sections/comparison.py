"""The comparison tables: Tables 1, 2 and 4 in the paper's shape, over text tasks."""

import statistics
from collections.abc import Callable, Sequence

from pipeline.report import paper
from pipeline.report.cells import (
    NOT_RUN,
    Cell,
    Table,
    TableRow,
    flags_of,
    in_points,
    row_id,
    row_name,
    runs_of,
    seeds_note,
    slug,
)
from pipeline.report.numbers import UNDEFINED, count, listed, number, points, times
from pipeline.report.sections.base import Finding, Section
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Interval, Row

Column = tuple[TaskResults, str]
"""A task and one of its report splits."""
Entry = tuple[TaskResults, Row]
"""A row with its task."""

SCORE_NOTE = (
    "Scores are in points: accuracy, Matthews or Pearson and Spearman correlation, or F1 as the task's metrics say; "
    "two metrics are averaged, as GLUE does. The paper does not say how it combines two."
)
MACRO_NOTE = "Macro: the mean over tasks, MNLI's two halves averaged first."
RATIO_NOTE = (
    "Layer ratio: layers in all / layers run, the paper's speed-up; FLOP ratio counts embedding and heads too. Both "
    "are means over the tasks of each task's median, MNLI's two halves averaged first."
)
PAPER_NOTE = (
    "The paper's figures are the medians of 5 runs that it printed for the development sets of GLUE, on its full data; "
    "it chose on the rows it reports, and its speed-up is a ratio of layers averaged over its tasks. Its test-set rows "
    "are not shown: those labels are hidden."
)


class Comparison(Section):
    """One table per backbone: methods down, text tasks across."""

    slug = "comparison"
    title = "Comparison (Tables 1, 2 and 4)"

    def not_run(self, stored: Stored) -> Sequence[str]:
        if not stored.texts:
            return ["no text task under tasks in params.yaml; add one, such as sst2, and a backbone for it"]
        return []

    def findings(self, stored: Stored) -> Sequence[Finding]:
        return _against_paper(stored)

    def tables(self, stored: Stored) -> Sequence[Table]:
        backbones = dict.fromkeys(row.backbone for task in stored.texts for row in task.rows)
        return [_table(stored, backbone) for backbone in backbones]


def _against_paper(stored: Stored) -> list[Finding]:
    """How many of our rows that have a counterpart, images among them, hold the paper's figure in their range."""
    pairs = [
        (task, row.score, value)
        for task in stored.tasks
        for row in task.rows
        if (value := paper.beside(task.name, row.backbone, task.group(row).layers, _key(row)).value) is not None
        and row.score.low is not None  # one seed has no range
    ]
    if not pairs:
        return []
    inside = sum(_holds(score, value) for _, score, value in pairs)
    text = f"{len(pairs)} rows with a range over seeds have a figure in the paper; {inside} of them hold it within."
    cut = dict.fromkeys(task.name for task, _, _ in pairs if task.train_rows is not None)
    if cut:
        text += f" {listed(cut)}: trained on a part of the rows only, so not like for like."
    return [Finding("The paper's figures", text)]


def _holds(interval: Interval, value: float) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return round(100 * interval.low, 1) <= value <= round(100 * interval.high, 1)


def _table(stored: Stored, backbone: str) -> Table:
    columns: list[Column] = [(task, split) for task in stored.texts for split in task.splits]
    in_table = paper.dev_rows(backbone)
    shared = {task.name for task in stored.texts} & {name for row in in_table for name in row.scores}
    # DistilBERT is a backbone of its own here and a row of BERT-base's table there.
    others = {(row.ours, row.key) for row in in_table if row.ours != backbone} if shared else set()
    every = [row for task in stored.texts for row in task.rows]
    own = [row for row in every if row.backbone == backbone]
    kin = [row for row in every if (row.backbone, _key(row)) in others]
    keys = dict.fromkeys((row.backbone, _key(row)) for row in (*own, *kin))
    rows = [_table_row(stored, name, key, columns, "" if name == backbone else name) for name, key in keys]
    if shared:
        rows += [_not_run(stored, row, columns) for row in in_table if (row.ours, row.key) not in keys]
    notes = [SCORE_NOTE, seeds_note(own), RATIO_NOTE, MACRO_NOTE]
    if any(cell.paper for row in rows for cell in row.cells):
        notes.append(PAPER_NOTE)
        if "mnli" in shared:
            notes.append("The paper's one MNLI column does not say which half it is; it stands beside both.")
    elif all(task.demo for task in stored.texts):
        notes.append("The paper has no figure for generated data.")
    heads = ("Model and exit rule", "Parameters", "Layer ratio", "FLOP ratio")
    tasks = tuple(task.heading(split) for task, split in columns)
    title = f"Comparison on {backbone}"
    if shared:
        title += f" (the paper's Table {in_table[0].table})"
    return Table(slug("overview", backbone), title, (*heads, *tasks, "Macro"), tuple(rows), tuple(notes))


def _table_row(stored: Stored, backbone: str, key: paper.Key, columns: Sequence[Column], remark: str = "") -> TableRow:
    by_column = [_find(task, split, backbone, key) for task, split in columns]
    entries = [(task, row) for (task, _), row in zip(columns, by_column, strict=True) if row is not None]
    groups = [task.group(row) for task, row in entries]
    in_paper = any(task.name in paper.ROWS[0].scores for task, _ in entries)
    printed = paper.counterpart(backbone, groups[0].layers, key) if in_paper else None
    tasks = len({task.name for task, _ in columns})
    speedup = times(printed.speedup) if printed else ""
    cells = [
        Cell(row_name(*key, multi_exit=groups[0].multi_exit), remark, printed.label if printed else ""),
        Cell(_spread([group.parameters for group in groups]), paper=printed.parameters if printed else ""),
        _mean(entries, lambda row: row.layer_speedup, tasks, speedup),
        _mean(entries, lambda row: row.flop_speedup, tasks),
    ]
    for (task, _), row in zip(columns, by_column, strict=True):
        cells.append(_score(task, backbone, row))
    cells.append(_macro(entries, printed) if len(entries) == len(columns) else Cell(paper.NONE))
    used = dict.fromkeys((key, seed) for _, row in entries for key, seed in zip(row.keys, row.seeds, strict=True))
    return TableRow(tuple(cells), runs_of([k for k, _ in used], stored.trials, [s for _, s in used]))


def _key(row: Row) -> paper.Key:
    return row.method, row.criterion


def _find(task: TaskResults, split: str, backbone: str, key: paper.Key) -> Row | None:
    wanted = (backbone, split, *key)
    return next((r for r in task.rows if (r.backbone, r.split, r.method, r.criterion) == wanted), None)


def _score(task: TaskResults, backbone: str, row: Row | None) -> Cell:
    if row is None:  # evaluate leaves out only what has no meaning for a task whose models were trained
        trained = any(group.backbone == backbone for group in task.groups)
        return Cell(UNDEFINED, "no regression") if task.regression and trained else Cell(NOT_RUN)
    beside = paper.beside(task.name, backbone, task.group(row).layers, _key(row))
    return in_points(row.score, beside.text if beside.label else "", flags_of(task, row), row_id(task, row))


def _macro(entries: Sequence[Entry], printed: paper.PaperRow | None) -> Cell:
    """GLUE's macro score: the mean over tasks, each the mean of its splits.

    Over fewer tasks than the table has it would be read as better or worse than the others, and is left out.
    """
    if any(row.score.centre is None for _, row in entries):
        return Cell(paper.NONE)
    by_task = _task_means(entries, lambda row: row.score)
    same = printed is not None and set(by_task) == set(printed.scores)
    beside = number(printed.macro) if same and printed is not None and printed.macro is not None else ""
    return Cell(number(points(statistics.fmean(by_task.values()))), paper=beside)


def _task_means(entries: Sequence[Entry], part: Callable[[Row], Interval]) -> dict[str, float]:
    """Each task's mean over its splits; rows without a value are left out."""
    by_task: dict[str, list[float]] = {}
    for task, row in entries:
        value = part(row).centre
        if value is not None:
            by_task.setdefault(task.name, []).append(value)
    return {task: statistics.fmean(values) for task, values in by_task.items()}


def _mean(entries: Sequence[Entry], part: Callable[[Row], Interval], of: int, beside: str = "") -> Cell:
    """The mean ratio over tasks, a task's splits averaged first; says over how many where not all have one."""
    values = _task_means(entries, part).values()
    if not values:
        return Cell(UNDEFINED, paper=beside)
    return Cell(times(statistics.fmean(values)), "" if len(values) == of else f"{len(values)} of {of} tasks", beside)


def _spread(values: Sequence[int]) -> str:
    """Parameter counts over tasks: they differ by the classifiers' outputs."""
    low, high = count(min(values)), count(max(values))
    return low if low == high else f"{low} to {high}"


def _not_run(stored: Stored, row: paper.PaperRow, columns: Sequence[Column]) -> TableRow:
    """A row of the paper's that was not run here."""
    cells = [
        Cell(row.label, _why_not(stored, row)),
        Cell("", paper=row.parameters),
        Cell("", paper=times(row.speedup)),
        Cell(""),
    ]
    for task, _ in columns:
        score = row.scores.get(task.name)
        shown = "“-”" if score is None and task.name in row.scores else number(score) if score is not None else ""
        cells.append(Cell("", paper=shown))
    return TableRow((*cells, Cell("")), origin=f"paper, Table {row.table}", run=False)


def _why_not(stored: Stored, row: paper.PaperRow) -> str:
    """Which setting leaves a row of the paper's out."""
    method, criterion = row.key
    groups = [group for task in stored.texts for group in task.groups]
    if all(group.backbone != row.ours for group in groups):
        return f"{NOT_RUN}: {row.ours} is not in backbones"
    if all(group.method != method for group in groups):
        return f"{NOT_RUN}: {method} is not in methods"
    return f"{NOT_RUN}: {criterion} is not in evaluate.criteria"
