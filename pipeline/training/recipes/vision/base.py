"""The contract of a vision recipe: how much each exit's loss weighs, at which point of training.

A text recipe's loss knows neither how far training is nor what an exit costs, and Shallow-Deep needs both. Where the
exits are is a setting of the network here, not of the recipe.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.training.recipes.base import exit_losses


class VisionRecipe(ABC):
    """L = sum_i w_i L_i over the exits, L_i the cross-entropy of exit i."""

    name: ClassVar[str]

    @abstractmethod
    def weights(self, costs: Sequence[float], done: float) -> list[float]:
        """Weight of each exit's loss, w_i.

        Args:
            costs: FLOPs of leaving at each exit, as shares of those of the last: ascending, the last is 1.
            done: share of training done, 0..1.
        """

    def loss(self, logits: Tensor, labels: Tensor, costs: Sequence[float], done: float) -> Tensor:
        """Logits (n, exits, classes), labels (n,) to a scalar."""
        losses = exit_losses(logits, labels)
        weights = torch.tensor(self.weights(costs, done), dtype=losses.dtype, device=losses.device)
        return (weights * losses).sum()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        """Weight of each exit's accuracy in the score that picks epochs and grid points: as the loss weighs them at
        the end of training, so that no criterion and no threshold is favoured; they sum to 1."""
        final = self.weights(costs, 1.0)
        return [weight / sum(final) for weight in final]
