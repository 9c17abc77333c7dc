"""Entropy (BranchyNet, DeeBERT): leave when the predicted distribution is sharp enough."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.evaluation.criteria.base import Array, Criterion, State, negative_entropy


@dataclass(frozen=True)
class Entropy(Criterion):
    """Negative entropy in nats, sum_c p_j(c) ln p_j(c) (Teerapittayanon et al. 2016; Xin et al. 2020).

    A row leaves when -H >= theta, that is H <= -theta; theta = -ln(classes) lets every row leave at the first exit. The
    released codes test H < S. The sign is reversed here, so that a higher threshold is stricter, as everywhere.
    """

    name: ClassVar[str] = "entropy"
    title: ClassVar[str] = "entropy (BranchyNet)"
    source: ClassVar[str] = "Teerapittayanon et al. 2016, BranchyNet; Xin et al. 2020, DeeBERT"

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        return state, negative_entropy(values)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        top = np.log(classes)
        return np.sort(-np.unique(np.concatenate([np.linspace(0.1 * top, top, 50), np.logspace(-4, -1, 50) * top])))

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return -float(np.log(classes)), 0.0


CRITERION = Entropy
