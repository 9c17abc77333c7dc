"""Joint training of all exits. PABEE, BranchyNet and Shallow-Deep use the same model, as in the paper (4.2)."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.training.recipes.base import Recipe, depth_weights, exit_losses


class Joint(Recipe):
    """L = sum_j j L_j / sum_j j over all layers (the paper, equation 6).

    The exits' scores, with the same weights, pick epochs and grid points, so that no criterion or threshold is
    favoured. The released code picks by the accuracy at one patience.
    """

    name = "joint"

    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        return tuple(places)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = exit_losses(logits, labels)
        return (depth_weights(len(losses), losses) * losses).sum()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        exits = len(costs)
        total = exits * (exits + 1) / 2
        return [j / total for j in range(1, exits + 1)]


RECIPE = Joint()
