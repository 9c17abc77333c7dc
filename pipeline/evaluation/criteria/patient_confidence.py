"""Patient confidence (PCEE-BERT): leave when t exits in a row were certain."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.evaluation.criteria.base import Array, Criterion, State, missing, negative_entropy, run_length


@dataclass(frozen=True)
class PatientConfidence(Criterion):
    """Run length of exits whose normalised entropy is below tau (Zhang et al. 2022).

    cnt_0 = 0;  cnt_j = cnt_{j-1} + 1 if H(p_j) / ln C < tau else 0;  leave when cnt_j >= t.

    The answers of the exits need not agree; each must only be certain. Exit 1 counts, so the earliest exit at t is
    layer t. The current exit answers. The released code can also average the probabilities of the run or of all exits
    (do_ensemble 1 and 2), reads patience 0 as "no early exit", and handles one row at a time; none is followed.

    Attributes:
        tau: normalised entropy, 0 to 1, below which an exit is certain.
    """

    name: ClassVar[str] = "patient_confidence"
    title: ClassVar[str] = "patient confidence (PCEE-BERT)"
    symbol: ClassVar[str] = "t"
    source: ClassVar[str] = "Zhang et al. 2022, PCEE-BERT"
    tau: float = 0.2

    def start(self, n: int, like: Array) -> State:
        xp = array_namespace(like)
        return {"count": xp.zeros((n,), dtype=xp.float64, device=device(like))}

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        sure = -negative_entropy(values) / np.log(values.shape[-1]) < self.tau
        count = run_length(state["count"], sure)
        return {"count": count}, count

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        return missing(state, "count", threshold, exits_left)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.arange(exits + 1, dtype=np.float64)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, float(exits)


CRITERION = PatientConfidence
