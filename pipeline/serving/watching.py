"""Who is told of the rows that a served model answers; by default nobody."""

from typing import Protocol

import numpy as np


class Watch(Protocol):
    """Told of every row that leaves, from one thread; it must return at once."""

    def answered(self, criterion: str, threshold: float, exit_index: int) -> bool:
        """A row left.

        Args:
            criterion: that decided, or "full".
            threshold: infinite where no row leaves early.
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

    def metrics(self) -> str:
        """What was counted, as Prometheus reads it."""


class Nobody:
    """A watch that counts nothing."""

    def answered(self, criterion: str, threshold: float, exit_index: int) -> bool:
        """No row goes on."""
        return False

    def compared(self, criterion: str, exit_index: int, logits: np.ndarray, last: np.ndarray) -> None:
        """Nothing is kept."""

    def metrics(self) -> str:
        """Nothing was counted."""
        return ""
