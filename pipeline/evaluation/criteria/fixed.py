"""Fixed layer: every row leaves at the same exit. The baseline that an adaptive criterion has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.evaluation.criteria.base import Array, Criterion, State, missing


@dataclass(frozen=True)
class FixedExit(Criterion):
    """Number of exits so far, j; the threshold is the exit at which to leave, counted from 1."""

    name: ClassVar[str] = "fixed"
    title: ClassVar[str] = "fixed layer"
    symbol: ClassVar[str] = "j"
    source: ClassVar[str] = "bound: one exit for all rows"
    probabilities: ClassVar[bool] = False
    regression: ClassVar[bool] = True
    adaptive: ClassVar[bool] = False

    def start(self, n: int, like: Array) -> State:
        xp = array_namespace(like)
        return {"exit": xp.zeros((n,), dtype=xp.float64, device=device(like))}

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        count = state["exit"] + 1
        return {"exit": count}, count

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        return missing(state, "exit", threshold, exits_left)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.arange(1, exits + 1, dtype=np.float64)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 1.0, float(exits)


CRITERION = FixedExit
