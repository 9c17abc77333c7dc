"""Confidence (Shallow-Deep, RightTool): leave when the largest softmax probability is high enough."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace

from pipeline.evaluation.criteria.base import Array, Criterion, State, log_probabilities, probability_sweep


@dataclass(frozen=True)
class Confidence(Criterion):
    """Largest softmax probability, max_c p_j(c), at temperature 1 (Kaya et al. 2019, 4.1).

    A row leaves when max p >= theta. When no exit reaches theta, the last exit answers, as in the paper's comparison.
    Shallow-Deep's released code then takes the most confident exit; that is not followed.
    """

    name: ClassVar[str] = "confidence"
    title: ClassVar[str] = "confidence (Shallow-Deep)"
    source: ClassVar[str] = "Kaya et al. 2019, Shallow-Deep Networks; Schwartz et al. 2020, RightTool"

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = array_namespace(values)
        return state, xp.exp(xp.max(log_probabilities(values), axis=-1))

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return probability_sweep(1 / classes)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 1 / classes, 1.0


CRITERION = Confidence
