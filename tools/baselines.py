"""The tables of docs/results-baselines.md, from what evaluate found on stored traces."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from pipeline.params import Params
from pipeline.results import Evaluated, Row
from tools.tables import Table, markdown

PROFILE = "baselines"
PAGE = Path(__file__).resolve().parent.parent / "docs/results-baselines.md"
CRITERIA = ("patience", "confidence", "fixed")


def methods(params: Params, folder: Path) -> str:
    """Score and speed-up of every method, with all its layers and under three criteria."""
    every = {task: Evaluated.read(folder / f"evaluated/{task}.json", "") for task in params.tasks}
    rows = []
    for method in params.entries():
        for criterion in (None, *CRITERIA):
            found = dict(_rows(every, method, criterion))
            if found:
                cells = [_cell(found.get(task), speed=criterion is not None) for task in every]
                rows.append([f"{method}, {criterion or 'all layers'}", _cost(list(found.values()), criterion), *cells])
    return markdown(["method", "layers, FLOPs", *every], rows)


def exits(params: Params, folder: Path) -> str:
    """Scores of the exits alone on report rows, median over seeds."""
    rows = []
    for task in params.tasks:
        evaluated = Evaluated.read(folder / f"evaluated/{task}.json", "")
        for method in params.entries():
            own = [one for one in evaluated.exits if (one.method, one.split) == (method, evaluated.rows[0].split)]
            scores = [one.scores for one in own if len(one.scores) > 1]
            if scores:
                medians = (median(value or 0.0 for value in of_exit) for of_exit in zip(*scores, strict=True))
                rows.append([task, method, *(f"{100 * value:.1f}" for value in medians)])
    return markdown(["task", "method", *map(str, range(1, 7))], rows)


TABLES: dict[str, Table] = {table.__name__: table for table in (methods, exits)}


def _rows(every: Mapping[str, Evaluated], method: str, criterion: str | None) -> Iterator[tuple[str, Row]]:
    for task, evaluated in every.items():
        for row in evaluated.rows:
            if (row.method, row.criterion) == (method, criterion):
                yield task, row


def _cell(row: Row | None, *, speed: bool) -> str:
    """Median of the score with its range over seeds, in points; the layer speed-up behind it."""
    if row is None or row.score.median is None:
        return ""
    low, high = row.score.low, row.score.high
    text = f"{100 * row.score.median:.1f}"
    if low is not None and high is not None:
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    if speed:
        text += f" at {row.layer_speedup.median:.2f}x" + ("" if row.in_window else " †")
    return text.replace("-", "−")  # noqa: RUF001 - a minus sign


def _cost(rows: list[Row], criterion: str | None) -> str:
    if criterion is not None:
        return ""
    flops = sorted(row.flop_speedup.median or 1.0 for row in rows)
    low, high = (f"{value:.2f}x" for value in (flops[0], flops[-1]))
    return f"{rows[0].layer_speedup.median:.2f}x, " + (low if low == high else f"{low} to {high}")
