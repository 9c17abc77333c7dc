"""The contract of a training recipe: which exits, from which weights, with which loss, judged how."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.multi_exit import MultiExit

Batches = Iterable[tuple[Mapping[str, Tensor], Tensor]]
"""Inputs and labels (n,), a batch at a time."""


@dataclass(frozen=True)
class Start:
    """What a trial starts from.

    Attributes:
        pretrained: makes the backbone with its pretrained weights (random ones for the demo's).
        parent: the trained model that the recipe starts from or learns from, in eval mode, if it has one.
        head_bias: where the bias of a new regression head starts.
    """

    pretrained: Callable[[], Any]
    outputs: int
    dropout: float
    parent: MultiExit | None = None
    head_bias: float = 0.0

    def teacher(self) -> MultiExit:
        """The parent, of a recipe that has one."""
        if self.parent is None:
            raise ValueError("the recipe starts from another's trained model and got none")
        return self.parent

    def model(self, backbone: Any, exits: Sequence[int], channels: Sequence[str] = ()) -> MultiExit:
        """A backbone with new heads."""
        return MultiExit(backbone, exits, self.outputs, self.dropout, channels, self.head_bias)


@dataclass(frozen=True)
class Moment:
    """Where training is.

    Attributes:
        done: share of training behind it, 0..1.
        parent: the model that the trial started from.
        costs: FLOPs of leaving at each exit, as shares of those of the last: ascending, the last is 1.
    """

    done: float
    parent: MultiExit | None = None
    costs: tuple[float, ...] = ()


class Recipe(ABC):
    """One way to train a multi-exit model."""

    name: ClassVar[str]

    @abstractmethod
    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        """Layers with a classifier, counted from 1, of those that a backbone offers, ascending."""

    def build(self, start: Start) -> MultiExit:
        """The model before training."""
        backbone = start.pretrained()
        return start.model(backbone, self.exits(backbone.exit_places()))

    def prepare(self, model: MultiExit, batches: Batches) -> None:  # noqa: B027 - most recipes need none
        """Change the model by what it does on the training rows, once, before it is trained."""

    def trainable(self, model: MultiExit) -> list[nn.Parameter]:
        """Parameters that the recipe moves; the others get no gradient."""
        return list(model.parameters())

    def training_mode(self, model: MultiExit) -> None:
        """Put the model into training mode; a recipe with frozen parts puts those back into eval mode."""
        model.train()

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, now: Moment) -> Tensor:
        """A batch and its labels (n,) to the scalar that training lowers; a mean over rows."""
        return self.loss(model(batch).float(), labels)

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (n, exits, outputs) and labels (n,) to a scalar."""

    def served(self, model: MultiExit) -> MultiExit:
        """The model that is judged and kept; it may be a part of the one that is trained, and shares its weights."""
        return model

    @abstractmethod
    def selection_weights(self, costs: Sequence[float]) -> Sequence[float]:
        """Weight of each exit's score in the score that picks epochs and grid points; they sum to 1.

        Args:
            costs: as in `Moment`.
        """

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
