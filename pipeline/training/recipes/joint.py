"""Joint training of all exits. PABEE, BranchyNet and Shallow-Deep use the same model, as in the paper (4.2)."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pipeline.models.multi_exit import MultiExit
from pipeline.training.equilibrium import balanced
from pipeline.training.recipes.base import Moment, Recipe, depth_weights, exit_losses


class Joint(Recipe):
    """L = sum_j w_j L_j over all layers; w_j = j / sum_j j (the paper, equation 6).

    The exits' scores, with the same weights, pick epochs and grid points, so that no criterion or threshold is
    favoured. The released code picks by the accuracy at one patience.

    Attributes:
        weights: `ascending`, as above; `uniform`, w_j = 1 / L; `descending`, w_j = (L + 1 - j) / sum_j j.
        gradients: `plain`, or `equilibrium` (pipeline/training/equilibrium.py).
    """

    name = "joint"
    weights = "ascending"
    gradients = "plain"

    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        return tuple(places)

    def answers(self, model: MultiExit, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits of all exits, (n, exits, outputs)."""
        return (balanced(model, batch) if self.gradients == "equilibrium" else model(batch)).float()

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        return self.loss(self.answers(model, batch), labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = exit_losses(logits, labels)
        return (depth_weights(len(losses), losses, self.weights) * losses).sum()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        exits = len(costs)
        if self.weights == "uniform":
            return [1 / exits] * exits
        total = exits * (exits + 1) / 2
        weights = [j / total for j in range(1, exits + 1)]
        return weights[::-1] if self.weights == "descending" else weights


RECIPE = Joint()
