"""The contract of an exit criterion: a causal score per row after each exit, compared with a threshold.

After exit j a criterion has seen exits 1..j and gives each row a score. The row leaves at the first exit whose
score reaches the threshold (score >= threshold), else at the last exit. Laws that every criterion keeps (held by
tests/test_criteria.py): it never looks past its exit; a higher threshold never exits earlier; a threshold of
infinity is the full model; rows do not influence each other.

`step` is written once against the array namespace of the logits it is handed: NumPy in replay, Torch when live.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

Array = Any  # numpy.ndarray or torch.Tensor; the array API has no common static type yet
State = dict[str, Array]  # per-row arrays, first axis n; the engine drops the rows that left


@dataclass(frozen=True)
class Criterion(ABC):
    """Base of the exit criteria. Subclasses are frozen: their fields are settings, the threshold is not one."""

    name: ClassVar[str]
    source: ClassVar[str]
    regression: ClassVar[bool] = False
    """Whether the score has a meaning when the model answers with one real number."""
    causal: ClassVar[bool] = True
    """False for bounds that look at labels or at the dice (oracle, random): replay only."""

    @abstractmethod
    def start(self, n: int, like: Array) -> State:
        """State before the first exit for n rows, on the device and in the namespace of `like`."""

    @abstractmethod
    def step(self, state: State, logits: Array) -> tuple[State, Array]:
        """Take one more exit.

        Args:
            state: arrays with first axis n, from `start` or the last `step`.
            logits: (n, classes), or (n, 1) for regression. Float.

        Returns:
            The new state, and the score (n,) after this exit.
        """

    @abstractmethod
    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        """The sweep that traces this criterion's whole curve, ascending, (k,) float64."""


def log_probabilities(logits: Array) -> Array:
    """Log-softmax over the last axis, (n, classes) to (n, classes), computed in float64.

    Float64 so that two paths to the same float32 logits cannot fall on two sides of a threshold.
    """
    xp = array_namespace(logits)
    wide = xp.astype(logits, xp.float64)
    shifted = wide - xp.max(wide, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
