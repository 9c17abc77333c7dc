"""A small backbone that needs no library but Torch: what the live engine asks of any network, and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.multi_exit import MultiExit


class Rows(NamedTuple):
    hidden: Tensor

    def select(self, index: Tensor) -> "Rows":
        return Rows(self.hidden[index])


class Chain(nn.Module):
    """layers x (linear, tanh) on a vector per row."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers, self.width = layers, width
        self.linear = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def embed(self, batch: Mapping[str, Tensor]) -> Rows:
        return Rows(batch["x"])

    def layer(self, index: int, state: Rows) -> Rows:
        return Rows(torch.tanh(self.linear[index](state.hidden)))

    def pool(self, index: int, state: Rows) -> Tensor:
        return state.hidden

    def parts_of_exits(self, exits: Sequence[int]) -> list[nn.Module]:
        return []

    def widths(self) -> list[int]:
        return [self.width] * self.layers

    def flops(self, sizes: np.ndarray, outputs: int, exits: Sequence[int], **_: bool) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(np.asarray(exits, dtype=float), (len(sizes), 1)), np.full(len(sizes), float(self.layers))

    def description(self) -> dict[str, Any]:
        return {"layers": self.layers, "width": self.width}


def chain_from_description(description: Mapping[str, Any]) -> Chain:
    return Chain(**description)


def chain_model(outputs: int, *, layers: int = 6, channels: tuple[str, ...] = ("lte",), seed: int = 0) -> MultiExit:
    """A random multi-exit chain whose exits disagree often and are sure of themselves at different depths."""
    torch.manual_seed(seed)
    model = MultiExit(Chain(layers, 16), range(1, layers + 1), outputs, channels=channels)
    with torch.no_grad():
        for linear in model.backbone.linear:
            linear.weight.mul_(2.5)
        for head in (*model.heads, *model.channels.values()):
            head.weight.mul_(4.0)
    return model.eval()
