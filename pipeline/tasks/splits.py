"""The rows of each split, for texts and images."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.tasks.task import Rows

TRAIN, SELECTION = "train", "selection"
HELD_OUT = "held_out"
"""The report split of a source that has none: rows taken out of the training split."""
Protocol = Literal["holdout", "paper"]
Chosen = dict[str, tuple[str, np.ndarray]]
"""Split to the source's split of its rows, and their positions in it, ascending."""


def choose_rows(task: str, counts: Mapping[str, int], rows: Rows, protocol: Protocol) -> Chosen:
    """Choose the rows of train, selection and the reported splits, with the generator of `rows.seed`.

    holdout takes the selection rows from the training split; paper selects on the first report split. Where the source
    has no split to report, its report rows are taken from the training split first.

    Args:
        counts: number of rows of each split of the source: "train" first, then the report splits.

    Raises:
        DataError: no training rows are left, or a split is empty.
    """
    refuse_empty(task, counts)
    generator = np.random.default_rng(rows.seed)
    available = counts[TRAIN]
    order = generator.permutation(available)
    report: Chosen = {
        name: (name, _sample(count, rows.report, generator)) for name, count in counts.items() if name != TRAIN
    }
    if not report:
        size = rows.report or min(available // 5, 10_000)
        if size >= available:
            raise DataError(
                f"{task}: {available} rows leave none to train on beside {size} report rows; "
                f"lower tasks.{task}.rows.report"
            )
        report, order = {HELD_OUT: (TRAIN, np.sort(order[:size]))}, order[size:]
    available = len(order)
    if protocol == "paper":
        selection, rest = next(iter(report.values())), order
    else:
        size = rows.selection or min(available // 10, 2000)
        if size >= available:
            raise DataError(
                f"{task}: {available} training rows leave none beside {size} selection rows; "
                f"lower tasks.{task}.rows.selection"
            )
        selection, rest = (TRAIN, np.sort(order[:size])), order[size:]
    chosen: Chosen = {TRAIN: (TRAIN, np.sort(rest[: rows.train])), SELECTION: selection, **report}
    refuse_empty(task, {name: len(index) for name, (_, index) in chosen.items()})
    return chosen


def refuse_empty(task: str, counts: Mapping[str, int]) -> None:
    """Raise DataError where a split has no rows."""
    for name, count in counts.items():
        if count == 0:
            raise DataError(f"{task}: split {name!r} is empty; check the source, and tasks.{task}.rows and .drop_label")


def _sample(count: int, rows: int | None, generator: np.random.Generator) -> np.ndarray:
    if rows is None or rows >= count:
        return np.arange(count)
    return np.sort(generator.choice(count, rows, replace=False))
