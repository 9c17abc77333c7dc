"""A request in the pool, its rows, and the states of several rows as one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.leaving import Leaving, Rule
from pipeline.models.deploy.segments import Arrays


class Ticket:
    """A request in the pool.

    Attributes:
        leaving: the answers of its rows, complete once the ticket is done.
        criterion: name of the rule's criterion, or "full".
        running: rows without an answer.
        error: why it cannot be answered.
    """

    def __init__(self, rule: Rule, criterion: str, rows: int) -> None:
        self.leaving, self.criterion = Leaving(rule, rows), criterion
        self.running = rows
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether it has all its answers, or an error."""
        return self.running == 0 or self.error is not None


@dataclass(eq=False)
class Row:
    """A row that runs.

    Attributes:
        place: in its ticket.
        number: rows that arrived before it.
        leaving: of this row alone, with the state of its criterion.
        inputs: one row, without padding.
        since: when it began to wait.
        state: likewise; empty before the embedding.
        layer: layers that it ran.
        exit: its next exit, counted from 0.
        left_at: the exit where it left, if it goes on for the watch alone.
        tokens: length of a text; 1 for an image.
    """

    ticket: Ticket
    place: int
    number: int
    leaving: Leaving
    inputs: Arrays
    since: float
    state: Arrays
    layer: int = 0
    exit: int = 0
    left_at: int | None = None

    def __post_init__(self) -> None:
        ids = self.inputs.get("input_ids")
        self.tokens: int = 1 if ids is None else ids.shape[1]


def stack(states: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """States of one row each as one, padded as the embedding would have padded them.

    The mask of a padded token is what raises the score of attention to it: the lowest float32.
    """
    if len(states) == 1:
        return dict(states[0])
    stacked = {}
    for name in states[0]:
        parts = [state[name] for state in states]
        shapes = [part.shape[1:] for part in parts]
        if len(set(shapes)) == 1:
            stacked[name] = np.concatenate(parts)
            continue
        shape = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
        lowest = np.finfo(np.float32).min if name == "bias" else 0
        stacked[name] = np.full((len(parts), *shape), lowest, dtype=parts[0].dtype)
        for i, part in enumerate(parts):
            stacked[name][i][tuple(map(slice, part.shape[1:]))] = part[0]
    return stacked


def without_padding(hidden: np.ndarray, tokens: int) -> np.ndarray:
    """A row of a batch without its padding. Images, which have four axes, have none."""
    return hidden[:, :tokens] if hidden.ndim == 3 else hidden
