"""Learning to exit (BERxiT, Xin et al. 2021): a small head that predicts whether an exit is right."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment, Recipe, Start

CHANNEL = "lte"


class Berxit(Recipe):
    """One linear layer, shared by all exits, on top of a frozen, jointly trained model.

    u_j = sigmoid(c . h_j + b) is trained with the squared error to 1 where exit j is right and 0 where it is wrong, the
    mean over rows and exits; for regression, to 1 - tanh|y_j - label|. h_j is the pooled vector that the exit's
    classifier reads.

    The paper trains c and b together with the model and alternates between the last exit's loss and the sum of all.
    Here backbone and classifiers are those of the `joint` parent, frozen, so that only the criterion differs from it.
    The released code predicts the opposite (an uncertainty) and softens its targets to 0.01 and 0.63; that is not
    followed. Epochs and grid points are picked by 1 minus the error on the selection rows.
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

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        logits, channels = model.record(batch, [CHANNEL])
        return self.loss(_with_certainty(logits, channels).float(), labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits of all exits, the certainty as last output, (n, exits, outputs + 1), and labels (n,) to a scalar."""
        certainty, answers = logits[:, :, -1], logits[:, :, :-1].detach()
        if answers.shape[2] == 1:
            target = 1 - torch.tanh((answers[:, :, 0] - labels[:, None].to(answers.dtype)).abs())
        else:
            target = (answers.argmax(dim=2) == labels.long()[:, None]).to(certainty.dtype)
        return (certainty - target).square().mean()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        return [1 / len(costs)] * len(costs)

    def selection(self, logits: Tensor, channels: Mapping[str, Tensor], labels: Tensor) -> float | None:
        return 1 - float(self.loss(_with_certainty(logits, channels), labels))


def _with_certainty(logits: Tensor, channels: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([logits, channels[CHANNEL][:, :, None]], dim=2)


RECIPE = Berxit()
