"""The comparison tables: Tables 1, 2 and 4 in the paper's shape, and every row in full, ours beside the paper's."""

import statistics
from collections.abc import Callable, Sequence

from pipeline.report import paper
from pipeline.report.cells import NOT_RUN, Cell, Row, Table, flags_of, in_points, ratio, rule_name, runs_of, slug
from pipeline.report.choices import aim
from pipeline.report.numbers import UNDEFINED, count, number, points, setting, signed, times
from pipeline.report.stored import Evaluated, Group, Interval, Result, Stored

Column = tuple[Evaluated, str]
"""A task and one of its report splits."""

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


def heading(task: Evaluated, split: str) -> str:
    """A column's or table's name: the task, with the split where there are several."""
    return task.name if len(task.splits()) == 1 else f"{task.name} {split}"


def row_id(row: Result) -> str:
    """The anchor of a row of the full tables."""
    return slug("row", row.task, row.split, row.backbone, row.method, row.criterion or "all")


def seeds_note(rows: Sequence[Result]) -> str:
    """How many seeds stand behind the medians, and what their range is worth."""
    fewest, most = min(len(row.seeds) for row in rows), max(len(row.seeds) for row in rows)
    worth = min((row.score.coverage for row in rows if row.score.coverage is not None), default=None)
    if worth is None:
        return "One seed: no interval."
    seeds = str(most) if fewest == most else f"{fewest} to {most}"
    return (
        f"The median over {seeds} seeds, with their range in brackets; the range holds the median of all seeds with a "
        f"probability of {worth:.0%}."
    )


def overview_tables(stored: Stored) -> list[Table]:
    """One table per backbone: methods down, tasks across."""
    backbones = dict.fromkeys(row.backbone for task in stored.tasks for row in task.rows)
    return [_overview(stored, backbone) for backbone in backbones]


def _overview(stored: Stored, backbone: str) -> Table:
    columns: list[Column] = [(task, split) for task in stored.tasks for split in task.splits()]
    theirs = paper.dev_rows(backbone)
    in_paper = {task.name for task in stored.tasks} & {t for r in theirs for t in r.scores}
    # DistilBERT is a backbone of its own here and a row of BERT-base's table there.
    others = {row.ours for row in theirs} - {backbone} if in_paper else set()
    every = [row for task in stored.tasks for row in task.rows]
    found = [row for row in every if row.backbone == backbone]
    kin = [r for r in every if r.backbone in others and (r.backbone, _key(r)) in {(t.ours, t.key) for t in theirs}]
    keys = dict.fromkeys((row.backbone, _key(row)) for row in (*found, *kin))
    rows = [_overview_row(stored, own, key, columns, "" if own == backbone else own) for own, key in keys]
    if in_paper:
        rows += [_not_run(stored, row, columns) for row in theirs if (row.ours, row.key) not in keys]
    notes = [SCORE_NOTE, seeds_note(found), RATIO_NOTE, MACRO_NOTE]
    if any(cell.paper for row in rows for cell in row.cells):
        notes.append(PAPER_NOTE)
        if "mnli" in in_paper:
            notes.append("The paper's one MNLI column does not say which half it is; it stands beside both.")
    elif all(task.name in stored.demo for task in stored.tasks):
        notes.append("The paper has no figure for generated data.")
    heads = ("Model and exit rule", "Parameters", "Layer ratio", "FLOP ratio")
    tasks = tuple(heading(task, split) for task, split in columns)
    title = f"Comparison on {backbone}"
    if in_paper:
        title += f" (the paper's Table {theirs[0].table})"
    return Table(slug("overview", backbone), title, (*heads, *tasks, "Macro"), tuple(rows), tuple(notes))


def _overview_row(stored: Stored, backbone: str, key: paper.Key, columns: Sequence[Column], remark: str = "") -> Row:
    by_column = [_find(task, split, backbone, key) for task, split in columns]
    rows = [row for row in by_column if row is not None]
    owners = {row.task: task for (task, _), row in zip(columns, by_column, strict=True) if row is not None}
    groups = [owners[row.task].group(row) for row in rows]
    theirs = paper.counterpart(backbone, groups[0].layers, key) if _any_known(rows) else None
    tasks = len({task.name for task, _ in columns})
    cells = [
        Cell(rule_name(*key, groups[0].multi_exit), remark, theirs.label if theirs else ""),
        Cell(_spread([group.parameters for group in groups]), paper=theirs.parameters if theirs else ""),
        _mean(rows, lambda row: row.layer_speedup, times, tasks, times(theirs.speedup) if theirs else ""),
        _mean(rows, lambda row: row.flop_speedup, times, tasks),
    ]
    for (task, split), row in zip(columns, by_column, strict=True):
        cells.append(_overview_cell(task, split, backbone, row))
    cells.append(_macro(by_column, theirs))
    used = dict.fromkeys((key, seed) for row in rows for key, seed in zip(row.keys, row.seeds, strict=True))
    return Row(tuple(cells), runs_of([k for k, _ in used], stored.trained, [s for _, s in used]))


def _key(row: Result) -> paper.Key:
    return row.method, row.criterion


def _macro(rows: Sequence[Result | None], theirs: paper.PaperRow | None) -> Cell:
    """GLUE's macro score: the mean over tasks, each the mean of its splits.

    Over fewer tasks than the table has it would be read as better or worse than the others, and is left out.
    """
    known = [row for row in rows if row is not None and row.score.centre is not None]
    if len(known) < len(rows):
        return Cell(paper.NONE)
    by_task = _task_means(known, lambda row: row.score)
    same = theirs is not None and set(by_task) == set(theirs.scores)
    beside = number(theirs.macro) if same and theirs is not None and theirs.macro is not None else ""
    return Cell(number(points(statistics.fmean(by_task.values()))), paper=beside)


def _task_means(rows: Sequence[Result], part: Callable[[Result], Interval]) -> dict[str, float]:
    """Each task's mean over its splits; rows without a value are left out."""
    by_task: dict[str, list[float]] = {}
    for row in rows:
        value = part(row).centre
        if value is not None:
            by_task.setdefault(row.task, []).append(value)
    return {task: statistics.fmean(values) for task, values in by_task.items()}


def _any_known(rows: Sequence[Result]) -> bool:
    return any(row.task in paper.ROWS[0].scores for row in rows)


def _find(task: Evaluated, split: str, backbone: str, key: paper.Key) -> Result | None:
    wanted = (backbone, split, *key)
    return next((r for r in task.rows if (r.backbone, r.split, r.method, r.criterion) == wanted), None)


def _overview_cell(task: Evaluated, split: str, backbone: str, row: Result | None) -> Cell:
    if row is None:  # evaluate leaves out only what has no meaning for a task whose models were trained
        trained = any(group.backbone == backbone for group in task.groups)
        missing = task.kind == "regression" and trained
        return Cell(UNDEFINED, "no regression") if missing else Cell(NOT_RUN)
    theirs = paper.beside(task.name, backbone, task.group(row).layers, (row.method, row.criterion))
    return in_points(row.score, theirs.text if theirs.row else "", flags_of(row), row_id(row))


def _why_not(stored: Stored, row: paper.PaperRow) -> str:
    """Which setting leaves a row of the paper's out."""
    method, criterion = row.key
    groups = [group for task in stored.tasks for group in task.groups]
    if all(group.backbone != row.ours for group in groups):
        return f"{NOT_RUN}: {row.ours} is not in backbones"
    if all(group.method != method for group in groups):
        return f"{NOT_RUN}: {method} is not in methods"
    return f"{NOT_RUN}: {criterion} is not in evaluate.criteria"


def _not_run(stored: Stored, row: paper.PaperRow, columns: Sequence[Column]) -> Row:
    cells = [
        Cell(row.label, _why_not(stored, row)),
        Cell("", paper=row.parameters),
        Cell("", paper=times(row.speedup)),
        Cell(""),
    ]
    for task, _ in columns:
        theirs = row.scores.get(task.name)
        shown = "“-”" if theirs is None and task.name in row.scores else number(theirs) if theirs is not None else ""
        cells.append(Cell("", paper=shown))
    return Row((*cells, Cell("")), origin=f"paper, Table {row.table}", run=False)


def _spread(values: Sequence[int]) -> str:
    """Parameter counts over tasks: they differ by the classifiers' outputs."""
    low, high = count(min(values)), count(max(values))
    return low if low == high else f"{low} to {high}"


def _mean(
    rows: Sequence[Result],
    part: Callable[[Result], Interval],
    show: Callable[[float | None], str],
    of: int,
    beside: str = "",
) -> Cell:
    """The mean over tasks, a task's splits averaged first; says over how many where not all have one."""
    values = _task_means(rows, part).values()
    if not values:
        return Cell(UNDEFINED, paper=beside)
    return Cell(show(statistics.fmean(values)), "" if len(values) == of else f"{len(values)} of {of} tasks", beside)


def task_tables(stored: Stored) -> list[Table]:
    """One table per task and report split: every model and exit rule at its operating point."""
    return [_task_table(stored, task, split) for task in stored.tasks for split in task.splits()]


def _task_table(stored: Stored, task: Evaluated, split: str) -> Table:
    rows = [row for row in task.rows if row.split == split]
    metrics = tuple(rows[0].metrics) if rows and len(rows[0].metrics) > 1 else ()
    heads = ("Model and exit rule", "Setting", "Parameters", "Layer ratio", "FLOP ratio", "Score")
    known = paper.has_task(task.name)
    risk = bool(rows) and rows[0].risk is not None
    columns = (
        *heads,
        *metrics,
        *(("Lost",) if risk else ()),
        "Seeds",
        *(("Paper: score", "Paper: layer ratio") if known else ()),
    )
    notes = [
        f"Split: {split}. Metric{'s' if metrics else ''}: {', '.join(rows[0].metrics) if rows else 'none'}. Settings "
        f"were chosen for {aim(task)}, one per seed.",
    ]
    if task.name in stored.cut:
        notes.append(f"Trained on {stored.cut[task.name]:,} rows{'; the paper used all' if known else ''}.")
    if not known:
        notes.append("The paper has no figure for this task.")
    if task.kind == "regression":
        notes.append("Confidence and entropy have no meaning for a regression and have no row.")
    found = tuple(_task_row(stored, row, task.group(row), metrics, known) for row in rows)
    return Table(slug("task", task.name, split), heading(task, split), columns, found, tuple(notes), names=2)


def _task_row(stored: Stored, row: Result, group: Group, metrics: Sequence[str], known: bool) -> Row:
    key = (row.method, row.criterion)
    theirs = paper.beside(row.task, row.backbone, group.layers, key)
    about = {} if row.criterion == "patience" and len(row.metrics) == 1 else row.settings
    cells = (
        Cell(rule_name(*key, group.multi_exit), row.backbone, theirs.row.label if theirs.row else ""),
        Cell(setting(row.criterion, row.thresholds, about)),
        Cell(count(group.parameters)),
        ratio(row.layer_speedup),
        ratio(row.flop_speedup),
        in_points(row.score, flags=flags_of(row)),
        *(in_points(row.metrics[name]) for name in metrics),
        *((in_points(row.risk),) if row.risk else ()),
        Cell(str(len(row.seeds)), f"{len(group.failed)} failed" if group.failed else ""),
    )
    if known:
        speed = times(theirs.row.speedup) if theirs.row else theirs.text
        cells += (Cell(theirs.text, _difference(row.score, theirs.value)), Cell(speed))
    return Row(cells, runs_of(row.keys, stored.trained, row.seeds), anchor=row_id(row))


def _difference(ours: Interval, theirs: float | None) -> str:
    """Ours minus the paper's, in points."""
    if theirs is None or ours.centre is None:
        return ""
    return f"ours {signed(100 * ours.centre - theirs)}"
