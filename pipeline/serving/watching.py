"""Who is told of the rows that a served model answers; by default nobody."""

from typing import Protocol

import numpy as np

from pipeline.evaluation.leaving import Rule


class Watch(Protocol):
    """Told of every row that leaves, from one thread; it must return at once."""

    def deepest(self, criterion: str, rule: Rule) -> int | None:
        """The exit, counted from 0, at which a request's rows must leave at the latest; None: they go as they go.

        Args:
            criterion: name of the rule's, or "full".
            rule: by which the request's rows leave.
        """

    def answered(self, criterion: str, rule: Rule, exit_index: int) -> bool:
        """A row left.

        Args:
            criterion: name of the rule's, or "full".
            rule: by which it left; its `last` is before the model's where `deepest` said so.
            exit_index: counted from 0.

        Returns:
            Whether the row is to go on to the last exit, after its answer was sent; `compared` is called then.
        """

    def compared(self, criterion: str, exit_index: int, logits: np.ndarray, last: np.ndarray) -> None:
        """A row that had left reached the last exit.

        Args:
            criterion: that decided, or "full".
            exit_index: where it left, counted from 0.
            logits: of the answer, (outputs,).
            last: of the last exit, (outputs,).
        """

    def request(self, status: int, seconds: float) -> None:
        """A request for answers was answered, or refused, with a status of HTTP."""

    def metrics(self) -> str:
        """What was counted, as Prometheus reads it."""


class Nobody:
    """A watch that counts nothing."""

    def deepest(self, criterion: str, rule: Rule) -> int | None:
        """No cap holds."""
        return None

    def answered(self, criterion: str, rule: Rule, exit_index: int) -> bool:
        """No row goes on."""
        return False

    def compared(self, criterion: str, exit_index: int, logits: np.ndarray, last: np.ndarray) -> None:
        """Nothing is kept."""

    def request(self, status: int, seconds: float) -> None:
        """Nothing is counted."""

    def metrics(self) -> str:
        """Nothing was counted."""
        return ""
