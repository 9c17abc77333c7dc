"""Normalised entropy (FastBERT): entropy as a share of its largest value, so that one threshold fits any task."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.evaluation.criteria.base import Array, Criterion, State, negative_entropy


@dataclass(frozen=True)
class NormalisedEntropy(Criterion):
    """Negative entropy over ln of the number of classes, sum_c p_j(c) ln p_j(c) / ln C, from -1 to 0 (Liu et al. 2020).

    A row leaves when the score >= theta. FastBERT calls U = H / ln C the uncertainty and its threshold the speed, and
    leaves when U < speed; so theta = -speed, but here U = speed leaves too. Its released code also lets each row of a
    batch leave by itself. The score orders rows as `entropy` does; only the scale of the threshold differs.
    """

    name: ClassVar[str] = "normalised_entropy"
    title: ClassVar[str] = "normalised entropy (FastBERT)"
    source: ClassVar[str] = "Liu et al. 2020, FastBERT"

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        return state, negative_entropy(values) / np.log(values.shape[-1])

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.sort(-np.unique(np.concatenate([np.linspace(0.1, 1, 50), np.logspace(-4, -1, 50)])))

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return -1.0, 0.0


CRITERION = NormalisedEntropy
