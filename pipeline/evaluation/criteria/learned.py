"""Learned exit (BERxiT LTE): leave when a small head on the hidden state predicts that the exit is right."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.criteria.base import RecordedScore, probability_sweep

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace


@dataclass(frozen=True)
class Learned(RecordedScore):
    """Certainty predicted by one linear layer, shared by all exits: u_j = sigmoid(c . h_j + b) (Xin et al. 2021).

    It reads channel "lte", (n,) in 0..1, which models of the method `berxit` record. A row leaves when u_j >= theta.
    For regression the head has learned 1 - tanh|y - label|. The released code predicts an uncertainty instead, leaves
    when it is below a threshold, and has one fixed threshold per layer; here one threshold serves all layers.
    """

    name: ClassVar[str] = "learned"
    title: ClassVar[str] = "learned (BERxiT)"
    source: ClassVar[str] = "Xin et al. 2021, BERxiT, learning to exit"
    probabilities: ClassVar[bool] = False
    reads: ClassVar[str] = "lte"
    recorded_by: ClassVar[str | None] = "berxit"
    regression: ClassVar[bool] = True

    def values(self, trace: "Trace") -> np.ndarray:
        certainty = super().values(trace)
        outside = (certainty < 0) | (certainty > 1)
        if outside.any():
            row, j = (int(i[0]) for i in np.nonzero(outside))
            raise ArtifactError(
                f"trace: channel {self.reads!r} of row {int(trace.row_ids[row])} is {certainty[row, j]:g} at exit "
                f"{j + 1}, which is no certainty; write it from 0 to 1"
            )
        return certainty

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return probability_sweep(0.0)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, 1.0


CRITERION = Learned
