"""Learning to exit (BERxiT, Xin et al. 2021): a small head that says whether an exit is right."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment, Recipe, Start

CHANNEL = "lte"


class Berxit(Recipe):
    """One linear layer, shared by all exits, on top of a jointly trained model that stays as it is.

    u_j = sigmoid(c . h_j + b) is trained by the squared error against whether exit j is right, the mean over rows and
    exits; for regression against 1 - tanh|y_j - label|. h_j is the pooled vector that the exit's classifier reads.

    The paper trains c and b together with the rest and alternates between the last exit's loss and the sum of all;
    here backbone and classifiers are the `joint` parent's and frozen, so that the exit rule is all that differs from
    it. The released code predicts the opposite (an uncertainty) and softens its targets to 0.01 and 0.63; not followed.
    Epochs and grid points are picked by 1 minus that error on the selection rows.
    """

    name = "berxit"

    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        return tuple(places)

    def build(self, start: Start) -> MultiExit:
        parent = start.teacher()
        model = start.model(parent.backbone, parent.exits, channels=[CHANNEL])
        model.heads.load_state_dict(parent.heads.state_dict())
        return model

    def trainable(self, model: MultiExit) -> list[nn.Parameter]:
        return list(model.channels.parameters())

    def training_mode(self, model: MultiExit) -> None:
        model.eval()

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, now: Moment) -> Tensor:
        logits, channels = model.record(batch, [CHANNEL])
        return self.loss(_said(logits, channels).float(), labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits of all exits with the certainty behind them, (n, exits, outputs + 1), and labels (n,) to a scalar."""
        certainty, answers = logits[:, :, -1], logits[:, :, :-1].detach()
        if answers.shape[2] == 1:
            target = 1 - torch.tanh((answers[:, :, 0] - labels[:, None].to(answers.dtype)).abs())
        else:
            target = (answers.argmax(dim=2) == labels.long()[:, None]).to(certainty.dtype)
        return (certainty - target).square().mean()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        return [1 / len(costs)] * len(costs)

    def selection(self, logits: Tensor, channels: Mapping[str, Tensor], labels: Tensor) -> float | None:
        return 1 - float(self.loss(_said(logits, channels), labels))


def _said(logits: Tensor, channels: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([logits, channels[CHANNEL][:, :, None]], dim=2)


RECIPE = Berxit()
