"""Who leaves of a batch that runs: the decisions of every live engine, in NumPy, by the criteria of replay."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError, InvalidLogitsError, UnsupportedError
from pipeline.evaluation.criteria.base import Criterion, State, answers_itself, refuse_other_fit

ExitAnswers = tuple[np.ndarray, np.ndarray]
"""What an exit gives the running rows: its logits, and what the rule reads, as `Leaving.take` gets them."""
Ask = Callable[[Sequence[int], Sequence[Any]], Sequence[ExitAnswers]]
"""Computes the answers of some exits, counted from 0, from the states behind their layers."""


class Rule:
    """A criterion at a threshold, for a model of so many exits and outputs.

    Args:
        criterion: None runs all layers and the last head only.
        threshold: a row leaves at the first exit whose score reaches it.
        channels: what the model has beside its logits.

    Attributes:
        reads: the channel that each exit must give beside its logits; "logits" for none.
        last: exit, counted from 0, at which every row leaves at the latest.
        capped: whether that is before the model's last, where the criterion still answers.

    Raises:
        UnsupportedError: the criterion has no meaning for a regression model, is a bound, or reads a channel that the
            model lacks.
        ArtifactError: the criterion was fitted to a model of other exits or classes.
    """

    def __init__(
        self, criterion: Criterion | None, threshold: float, exits: int, outputs: int, channels: tuple[str, ...] = ()
    ) -> None:
        self.name = "full" if criterion is None else criterion.name
        self.reads = "logits" if criterion is None else criterion.reads
        self.criterion, self.threshold = criterion, threshold
        self.last, self.outputs, self.capped = exits - 1, outputs, False
        self.answers_itself = criterion is not None and answers_itself(criterion)
        if criterion is None:
            return
        name = criterion.name
        if outputs == 1 and not criterion.regression:
            raise UnsupportedError(f"criterion {name!r} has no meaning for regression; use patience")
        if not criterion.causal:
            raise UnsupportedError(f"criterion {name!r} is a bound that only replay can compute; choose another")
        if self.reads != "logits" and self.reads not in channels:
            raise UnsupportedError(
                f"criterion {name!r} reads channel {self.reads!r}, which the model lacks; "
                f"use a model of method {criterion.recorded_by!r}"
            )
        refuse_other_fit(criterion, exits, outputs)

    def within(self, exit_index: int) -> "Rule":
        """The same rule, but that every row leaves at an exit, counted from 0, at the latest."""
        rule = copy(self)
        rule.last = min(self.last, exit_index)
        rule.capped = self.capped or exit_index < self.last
        return rule

    def asks(self, exit_index: int) -> bool:
        """Whether an exit, counted from 0, must answer at all."""
        return self.criterion is not None or exit_index == self.last


class Leaving:
    """The rows of one batch that still run, and the answers of those that left.

    Attributes:
        logits: of the exit that answered each row, (n, outputs) float32.
        exit_index: that exit, counted from 0, (n,) int64.
    """

    def __init__(self, rule: Rule, rows: int) -> None:
        self.rule = rule
        self.rows = rows
        self.logits = np.empty((rows, rule.outputs), dtype=np.float32)
        self.exit_index = np.empty(rows, dtype=np.int64)
        self._active: slice | np.ndarray = slice(None)  # positions in the batch of the rows that still run
        self._memory: State | None = None
        self._waiting: list[tuple[int, Any]] = []  # exits at which no row can leave yet
        self._wait = self._exits_until(-1)

    def after_layer(self, exit_index: int, state: Any, ask: Ask) -> np.ndarray | None:
        """Let the running rows leave at the exit behind the layer that has run, or go on.

        Where one row runs alone, an exit at which it cannot leave yet, such as the first t under patience t, is asked
        together with the first at which it can. The weights of a pooler, and the code of the decision, then come from
        memory once and not behind every layer, which empties the caches (docs/design/deploy.md). In a batch they are
        shared by its rows, and states that wait would take memory.

        Args:
            state: behind that layer; it is kept until the exit is asked.
            ask: asks this exit, and those that wait.

        Returns, raises:
            As `take`; ArtifactError: a row leaves before the criterion said that one can.
        """
        if not self.rule.asks(exit_index):
            return None
        self._waiting.append((exit_index, state))
        if len(self._waiting) < self._wait:
            return None
        asked, states = zip(*self._waiting, strict=True)
        self._waiting = []
        stay = None
        for at, answers in zip(asked, ask(asked, states), strict=True):
            if stay is not None:
                raise ArtifactError(
                    f"criterion {self.rule.name!r}: a row leaves before `wait` said that one can; mend `wait`"
                )
            stay = self.take(at, *answers)
        self._wait = self._exits_until(exit_index)
        return stay

    def _exits_until(self, exit_index: int) -> int:
        """How many exits behind this one, counted from 0, are asked until a row can leave."""
        rule = self.rule
        exits_left = rule.last - exit_index
        if rule.criterion is None or self.rows > 1 or exits_left < 2:
            return 1
        return min(exits_left, rule.criterion.wait(self._memory, rule.threshold, exits_left))

    def take(self, exit_index: int, logits: np.ndarray, values: np.ndarray) -> np.ndarray | None:
        """Let the running rows leave at an exit, or go on.

        Args:
            logits: of the running rows, (running, outputs) float32.
            values: what the rule reads, (running, ...) float32; the same object where it reads the logits.

        Returns:
            Positions among the running rows of those that go on, empty when the batch is answered; None: all go on.

        Raises:
            InvalidLogitsError: an exit answered NaN.
        """
        rule = self.rule
        _refuse_nan(logits)
        if rule.criterion is None or (exit_index == rule.last and not rule.capped):
            return self._leave(exit_index, logits)
        if values is not logits:
            _refuse_nan(values)
        if self._memory is None:
            self._memory = rule.criterion.start(len(logits), values)
        self._memory, score = rule.criterion.step(self._memory, values)
        leaves = score >= rule.threshold if exit_index < rule.last else np.ones(len(logits), dtype=bool)
        leaving = np.count_nonzero(leaves)
        if not leaving:
            return None
        answers = rule.criterion.answer(self._memory, logits) if rule.answers_itself else logits
        if leaving == len(logits):
            return self._leave(exit_index, answers)
        if isinstance(self._active, slice):
            self._active = np.arange(self.rows)
        left = self._active[leaves]
        self.logits[left], self.exit_index[left] = answers[leaves], exit_index
        stay = np.flatnonzero(~leaves)
        self._memory = {name: value[stay] for name, value in self._memory.items()}
        self._active = self._active[stay]
        return stay

    def _leave(self, exit_index: int, answers: np.ndarray) -> np.ndarray:
        """All running rows leave."""
        self.logits[self._active], self.exit_index[self._active] = answers, exit_index
        return _NONE


_NONE = np.empty(0, dtype=np.int64)


def leave_recorded(rule: Rule, logits: np.ndarray, channels: Mapping[str, np.ndarray]) -> Leaving:
    """Let rows leave, of which all exits have answered.

    Args:
        logits: (n, exits, outputs) float32.
        channels: (n, exits) float32 each.

    Raises:
        InvalidLogitsError: an exit answered NaN.
    """
    _refuse_nan(logits)
    leaving = Leaving(rule, len(logits))
    values = logits if rule.reads == "logits" else channels[rule.reads]
    running = np.arange(len(logits))
    for exit_index in filter(rule.asks, range(rule.last + 1)):
        given = logits[running, exit_index]
        stay = leaving.take(exit_index, given, given if values is logits else values[running, exit_index])
        running = running if stay is None else running[stay]
        if not len(running):
            break
    return leaving


def _refuse_nan(array: np.ndarray) -> None:
    # For a row or two Python is faster: NumPy's two calls take 0.04 ms with cold caches.
    has_nan = any(x != x for x in array.ravel().tolist()) if array.size <= 16 else np.isnan(array).any()
    if has_nan:
        raise InvalidLogitsError("live: the model answered NaN; lower its learning rate and train it again")
