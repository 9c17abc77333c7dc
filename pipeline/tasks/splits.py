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


def choose_rows(
    task: str, counts: Mapping[str, int], rows: Rows, protocol: Protocol, alike: np.ndarray | None = None
) -> Chosen:
    """Choose the rows of train, selection and the reported splits, with the generator of `rows.seed`.

    holdout takes the selection rows from the training split; paper selects on the first report split. Where the source
    has no split to report, its report rows are taken from the training split first.

    Args:
        counts: number of rows of each split of the source: "train" first, then the report splits.
        alike: a number for each row of "train", equal where rows have equal inputs; these come into one split. A part
            that they cannot fill exactly is smaller. None: every row is by itself.

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
        held_out, order = _drawn(task, "report", order, size, alike)
        report = {HELD_OUT: (TRAIN, held_out)}
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
        drawn, rest = _drawn(task, "selection", order, size, alike)
        selection = (TRAIN, drawn)
    chosen: Chosen = {TRAIN: (TRAIN, np.sort(rest[: rows.train])), SELECTION: selection, **report}
    refuse_empty(task, {name: len(index) for name, (_, index) in chosen.items()})
    return chosen


def _drawn(
    task: str, part: str, order: np.ndarray, size: int, alike: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first `size` rows of an order, ascending, and the others in their order.

    Rows that are alike stay together: those that would go beyond `size` are passed over.

    >>> [rows.tolist() for rows in _drawn("x", "report", np.array([3, 0, 2, 1]), 2, None)]
    [[0, 3], [2, 1]]
    >>> [rows.tolist() for rows in _drawn("x", "report", np.array([0, 3, 2, 1]), 2, np.array([7, 7, 7, 8]))]
    [[3], [0, 2, 1]]
    """
    if alike is None:
        return np.sort(order[:size]), order[size:]
    _, first, group, counts = np.unique(alike[order], return_index=True, return_inverse=True, return_counts=True)
    taken, left = np.zeros(len(first), bool), size
    for index in np.argsort(first):
        if counts[index] <= left:
            taken[index], left = True, left - counts[index]
    if size and not taken.any():
        raise DataError(
            f"{task}: rows with equal inputs come into one split, and all repeat more often than the {size} times that "
            f"the {part} rows would hold; raise tasks.{task}.rows.{part}"
        )
    return np.sort(order[taken[group]]), order[~taken[group]]


def refuse_empty(task: str, counts: Mapping[str, int]) -> None:
    """Raise DataError where a split has no rows."""
    for name, count in counts.items():
        if count == 0:
            raise DataError(f"{task}: split {name!r} is empty; check the source, and tasks.{task}.rows and .drop_label")


def _sample(count: int, rows: int | None, generator: np.random.Generator) -> np.ndarray:
    if rows is None or rows >= count:
        return np.arange(count)
    return np.sort(generator.choice(count, rows, replace=False))
