"""Learned exit (BERxiT LTE): leave when a small head on the hidden state predicts that the exit is right."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.evaluation.criteria.base import RecordedScore, probability_sweep


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
    reads: ClassVar[str] = "lte"
    recorded_by: ClassVar[str | None] = "berxit"
    regression: ClassVar[bool] = True

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return probability_sweep(0.0)


CRITERION = Learned
