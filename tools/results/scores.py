"""Tables of what evaluate found, which several pages have."""

from pathlib import Path
from statistics import median

from pipeline.params import Params
from pipeline.results import Evaluated, Row
from tools.results.tables import markdown


def scores(params: Params, folder: Path) -> str:
    """Score and speed-up of each method on report rows, through all layers and under each criterion."""
    rows = []
    for task, evaluated in found(params, folder).items():
        for method in params.entries():
            own = {row.criterion: row for row in evaluated.rows if row.method == method}
            if own:
                cells = [cell(own.get(name), speed=True) for name in params.evaluate.criteria]
                rows.append([task, method, cell(own[None], speed=False), *cells])
    return markdown(["task", "method", "all layers", *params.evaluate.criteria], rows)


def exits(params: Params, folder: Path) -> str:
    """Scores of the exits alone on report rows, median over seeds."""
    rows, most = [], 0
    for task, evaluated in found(params, folder).items():
        for method in params.entries():
            own = [one for one in evaluated.exits if (one.method, one.split) == (method, evaluated.rows[0].split)]
            of_seeds = [one.scores for one in own if len(one.scores) > 1]
            if of_seeds:
                medians = [median(value or 0.0 for value in of_exit) for of_exit in zip(*of_seeds, strict=True)]
                most = max(most, len(medians))
                rows.append([task, method, *(f"{100 * value:.1f}" for value in medians)])
    return markdown(
        ["task", "method", *map(str, range(1, most + 1))], [row + [""] * (most + 2 - len(row)) for row in rows]
    )


def found(params: Params, folder: Path) -> dict[str, Evaluated]:
    """What evaluate found of each task."""
    return {task: Evaluated.read(folder / f"evaluated/{task}.json", "") for task in params.tasks}


def cell(row: Row | None, *, speed: bool) -> str:
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
