"""The contract of a method's recipe: exits, initial weights, loss and selection score."""

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
    """The start of a trial.

    Attributes:
        pretrained: makes the backbone with its pretrained weights (random ones for the demo's backbones).
        parent: the trained model that the recipe starts or learns from, in eval mode; None where it needs none.
        head_bias: initial bias of a new regression head.
    """

    pretrained: Callable[[], Any]
    outputs: int
    dropout: float
    parent: MultiExit | None = None
    head_bias: float = 0.0

    def teacher(self) -> MultiExit:
        """The parent, for a recipe that needs one."""
        if self.parent is None:
            raise ValueError("the recipe needs a parent's trained model and got none")
        return self.parent

    def model(self, backbone: Any, exits: Sequence[int], channels: Sequence[str] = ()) -> MultiExit:
        """A backbone with new heads."""
        return MultiExit(backbone, exits, self.outputs, self.dropout, channels, self.head_bias)


@dataclass(frozen=True)
class Moment:
    """A moment of training.

    Attributes:
        done: share of training done, 0..1.
        parent: the model that the trial started from.
        costs: FLOPs of leaving at each exit as shares of the last exit's, ascending to 1.
        step: the batch's number from the start of training, counted from 1.
    """

    done: float
    parent: MultiExit | None = None
    costs: tuple[float, ...] = ()
    step: int = 1


class Recipe(ABC):
    """One way to train a multi-exit model."""

    name: ClassVar[str]

    @abstractmethod
    def exits(self, places: Sequence[int]) -> tuple[int, ...]:
        """Layers with a classifier, chosen from the backbone's places; counted from 1, ascending."""

    def build(self, start: Start) -> MultiExit:
        """The model before training."""
        backbone = start.pretrained()
        return start.model(backbone, self.exits(backbone.exit_places()))

    def decide(self, model: MultiExit, batches: Batches) -> Any:
        """What to change in the model before training, based on the training rows: JSON, None for nothing.

        It is stored, and a resumed trial gets the stored one: computed again on a GPU it might differ.
        """
        return None

    def change(self, model: MultiExit, decision: Any) -> None:  # noqa: B027 - most recipes decide nothing
        """Change the model as decided."""

    def trainable(self, model: MultiExit) -> list[nn.Parameter]:
        """Parameters to train; the others get no gradient."""
        return list(model.parameters())

    def training_mode(self, model: MultiExit) -> None:
        """Put the model into training mode; a recipe with frozen parts keeps them in eval mode."""
        model.train()

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        """The scalar to minimise for a batch with labels (n,); a mean over rows."""
        return self.loss(model(batch).float(), labels)

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (n, exits, outputs) and labels (n,) to a scalar."""

    def served(self, model: MultiExit) -> MultiExit:
        """The model that is evaluated and stored; it may be a part of the trained model, whose weights it shares."""
        return model

    @abstractmethod
    def selection_weights(self, costs: Sequence[float]) -> Sequence[float]:
        """Weight of each exit's score in the score that picks epochs and grid points; they sum to 1.

        Args:
            costs: costs of the exits, as in `Moment`.
        """

    def selection(self, logits: Tensor, channels: Mapping[str, Tensor], labels: Tensor) -> float | None:
        """The recipe's own score that picks epochs and grid points, higher is better; None: the weighted scores.

        Args:
            logits: logits of the selection rows, (n, exits, outputs).
            channels: the model's channels, (n, exits) each.
            labels: labels, (n,).
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


def depth_weights(exits: int, like: Tensor, order: str = "ascending") -> Tensor:
    """Weight of each exit, of sum 1: j / sum_j j for j = 1..exits (equation 6), equal (`uniform`) or `descending`."""
    weights = torch.arange(1, exits + 1, dtype=like.dtype, device=like.device)
    if order == "uniform":
        weights = torch.ones_like(weights)
    elif order == "descending":
        weights = weights.flip(0)
    return weights / weights.sum()
