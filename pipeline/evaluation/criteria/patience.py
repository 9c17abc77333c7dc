"""Patience (PABEE): leave when the prediction has not changed for t exits in a row."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import device

from pipeline.evaluation.arrays import largest_class, namespace_of
from pipeline.evaluation.criteria.base import Array, Criterion, State, missing, run_length


@dataclass(frozen=True)
class Patience(Criterion):
    """Count how many times in a row the prediction stayed the same (Zhou et al. 2020, equations 2 and 3).

    cnt_1 = 0;  cnt_j = cnt_{j-1} + 1 if same(y_j, y_{j-1}) else 0;  leave when cnt_j >= t.

    Classification: same = equal argmax. Regression: same = |y_j - y_{j-1}| < tau; the paper prints the signed
    difference, and the absolute one of its released code is followed. The earliest exit is layer t+1. Two points of the
    released code are not followed: it reads patience 0 as "no early exit", where threshold 0 here leaves at the first
    exit, and it keeps one counter per batch, where every row here has its own.

    Attributes:
        tau: regression only; differences below tau, in label units, count as unchanged.
    """

    name: ClassVar[str] = "patience"
    title: ClassVar[str] = "patience (PABEE)"
    symbol: ClassVar[str] = "t"
    source: ClassVar[str] = "Zhou et al. 2020, BERT Loses Patience, 3.2"
    probabilities: ClassVar[bool] = False
    regression: ClassVar[bool] = True
    tau: float = 0.5

    def used_settings(self, *, regression: bool) -> dict[str, float]:
        return super().used_settings(regression=regression) if regression else {}

    def start(self, n: int, like: Array) -> State:
        xp = namespace_of(like)
        # NaN equals nothing, so the first exit starts the count at 0.
        return {
            "previous": xp.full((n,), xp.nan, dtype=xp.float64, device=device(like)),
            "count": xp.zeros((n,), dtype=xp.float64, device=device(like)),
        }

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = namespace_of(values)
        if values.shape[-1] == 1:
            answer = xp.astype(values[:, 0], xp.float64)
            same = xp.abs(answer - state["previous"]) < self.tau
        else:
            answer = xp.astype(largest_class(values), xp.float64)
            same = answer == state["previous"]
        count = run_length(state["count"], same)
        return {"previous": answer, "count": count}, count

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        return missing(state, "count", threshold, exits_left, before=-1.0)  # the first exit starts the count, at 0

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.arange(exits, dtype=np.float64)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, exits - 1.0


CRITERION = Patience
