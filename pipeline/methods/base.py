"""The contract of a training recipe: which exits, from which weights, with which loss, judged how."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.multi_exit import Backbone, MultiExit


class Recipe(ABC):
    """One way to train a multi-exit model."""

    name: ClassVar[str]

    @abstractmethod
    def exits(self, layers: int) -> tuple[int, ...]:
        """Layers with a classifier, counted from 1, of a backbone of `layers`."""

    def build(self, backbone: Backbone, outputs: int, dropout: float, parent: MultiExit | None) -> MultiExit:
        """The model before training. `parent` is the trained model that the recipe starts from, if it has one."""
        return MultiExit(backbone, self.exits(backbone.layers), outputs, dropout)

    def trainable(self, model: MultiExit) -> list[nn.Parameter]:
        """Parameters that the recipe moves; the others get no gradient."""
        return list(model.parameters())

    def training_mode(self, model: MultiExit) -> None:
        """Put the model into training mode; a recipe with frozen parts puts those back into eval mode."""
        model.train()

    def forward(self, model: MultiExit, batch: Mapping[str, Tensor]) -> Tensor:
        """What the loss sees of a batch, (n, exits, outputs): the logits of all exits, unless a recipe says more."""
        logits: Tensor = model(batch)
        return logits

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What `forward` gave, (n, exits, outputs), and labels (n,) to a scalar."""

    @abstractmethod
    def selection_weights(self, exits: int) -> Sequence[float]:
        """Weight of each exit's score in the score that picks epochs and grid points; they sum to 1."""

    def selection(self, logits: Tensor, channels: Mapping[str, Tensor], labels: Tensor) -> float | None:
        """A score of the recipe's own to pick epochs and grid points by, higher is better; None: the weighted scores.

        Args:
            logits: of the selection rows, (n, exits, outputs).
            channels: what the model recorded beside them, (n, exits) each.
            labels: (n,).
        """
        return None


def exit_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of each exit, (n, exits, outputs), (n,) to (exits,): cross-entropy (equation 4), or the squared error
    (equation 5) when there is one output."""
    n, exits, outputs = logits.shape
    if outputs == 1:
        return (logits[:, :, 0] - labels[:, None].to(logits.dtype)).square().mean(dim=0)
    targets = labels.long()[:, None].expand(n, exits)
    losses = functional.cross_entropy(logits.reshape(n * exits, outputs), targets.reshape(-1), reduction="none")
    return losses.view(n, exits).mean(dim=0)


def depth_weights(exits: int, like: Tensor) -> Tensor:
    """j / sum_j j for j = 1..exits (equation 6)."""
    weights = torch.arange(1, exits + 1, dtype=like.dtype, device=like.device)
    return weights / weights.sum()
