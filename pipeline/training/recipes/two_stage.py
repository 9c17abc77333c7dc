"""Exits on a frozen, fine-tuned backbone (DeeBERT, Xin et al. 2020, section 3)."""

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Recipe, Start, exit_losses


class TwoStage(Recipe):
    """Stage 1 is the `single_exit` model, frozen; stage 2 trains the exits before the last, L = sum_j L_j.

    The last classifier is the trained one of stage 1. With `heads: own_pooler` the poolers of the exits before the last
    are trained too, as in DeeBERT's code; they start as the one of stage 1, there at random. One mode of that code
    leaves the last off-ramp untrained; that is not followed.
    """

    name = "two_stage"

    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        return tuple(places)

    def build(self, start: Start) -> MultiExit:
        parent = start.teacher()
        model = start.model(parent.backbone, self.exits(parent.backbone.exit_places()))
        model.heads[-1].load_state_dict(parent.heads[-1].state_dict())
        return model

    def trainable(self, model: MultiExit) -> list[nn.Parameter]:
        return [p for part in model.early_exits() for p in part.parameters()]

    def training_mode(self, model: MultiExit) -> None:
        model.train()
        model.backbone.eval()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return exit_losses(logits, labels)[:-1].sum()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        return [1 / len(costs)] * len(costs)


RECIPE = TwoStage()
