"""Plain fine-tuning: one classifier on the last layer. The paper's "ALBERT-base" and "BERT-base" rows."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.training.recipes.base import Recipe, exit_losses


class SingleExit(Recipe):
    """Cross-entropy (for regression, squared error) of the last layer, whose score also selects."""

    name = "single_exit"

    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        return (places[-1],)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return exit_losses(logits, labels).sum()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        return [1.0]


RECIPE = SingleExit()
