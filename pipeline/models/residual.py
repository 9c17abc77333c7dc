"""CIFAR residual networks, divided into embed, layer and pool.

A layer is one basic block, two convolutions: "after every two convolutional layers, an internal classifier is added"
(BERT Loses Patience, Appendix A). ResNet-56 has 27.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.flops import ResNetShape, exit_layers, resnet_flops
from pipeline.models.names import Placement, check_depth


class State(NamedTuple):
    """The state between blocks: feature maps (n, channels, height, width)."""

    hidden: Tensor

    def select(self, index: Tensor) -> "State":
        """Keep the rows in `index`."""
        return State(self.hidden[index])


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the shortcut, ReLU (He et al. 2016, figure 2).

    Where the channels change, the shortcut takes every second pixel and pads the new channels with zeros (option A,
    which He et al. use on CIFAR). Shallow-Deep's code has a 1x1 convolution instead (option B).
    """

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if before == channels else 2
        self.added = channels - before
        self.conv1 = nn.Conv2d(before, channels, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) to (n, channels, h / stride, w / stride)."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))
        return functional.relu(residual + x)


class ResNet(nn.Module):
    """embed -> block 1..3n -> global average pool, for 32x32 colour images (He et al. 2016, 4.2).

    Images are uint8 with the channels last, as stored. Normalisation is part of the network, so that a checkpoint is
    complete.

    Args:
        depth: 6n + 2.
        width: channels of the first stage; 16 in the paper.
        mean, std: of each colour, on the scale 0..1.
        placement: where exits may stand.

    Attributes:
        layers: number of blocks, 3n.
        full_layers: layers of the model that speed-ups are relative to: this one.

    Raises:
        ParamsError: the depth is not 6n + 2.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        depth: int,
        width: int,
        mean: Sequence[float],
        std: Sequence[float],
        placement: Placement = "every_two_convs",
    ) -> None:
        super().__init__()
        check_depth(depth, "backbones")
        self.depth, self.width, self.placement = depth, width, placement
        self.colours = {"mean": list(mean), "std": list(std)}
        channels = self.widths()
        self.layers = self.full_layers = len(channels)
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        before = [width, *channels[:-1]]
        self.blocks = nn.ModuleList(BasicBlock(b, c) for b, c in zip(before, channels, strict=True))
        # Not in the checkpoint, since the description has them.
        self.register_buffer("mean", 255.0 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std)[:, None, None], persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # With the channels last, as stored images have them, a step takes 22 to 24% less time on the CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, batch: Mapping[str, Tensor]) -> State:
        """Images to the state before block 1. Batch: image, (n, 32, 32, 3) uint8."""
        pixels = batch["image"].permute(0, 3, 1, 2).to(self.mean.dtype)
        return State(functional.relu(self.bn(self.stem((pixels - self.mean) / self.std))))

    def layer(self, index: int, state: State) -> State:
        """Run block `index`, counted from 0."""
        return State(self.blocks[index](state.hidden))

    def pool(self, index: int, state: State) -> Tensor:
        """Mean over the pixels, (n, channels). Shallow-Deep instead learns a mix of max and mean pooling to 4x4."""
        return state.hidden.mean(dim=(2, 3))

    def widths(self) -> list[int]:
        """Width of the pooled vector after each block."""
        return self.shape(classes=0).channels()

    def parts_of_exits(self, exits: Sequence[int]) -> list[nn.Module]:
        """Parts that only the exits after these blocks read: none."""
        return []

    def exit_places(self) -> tuple[int, ...]:
        """Blocks after which an exit may stand, counted from 1."""
        return exit_layers(self.shape(classes=0), self.placement)

    def flops(
        self, sizes: np.ndarray, outputs: int, exits: Sequence[int], *, against_itself: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """FLOPs of each image at each exit, (n, exits), and of the plain network, (n,); equal for all images."""
        return resnet_flops(self.shape(outputs), len(sizes), np.asarray(exits))

    def shape(self, classes: int) -> ResNetShape:
        """The shape for the FLOP count."""
        return ResNetShape(self.depth, self.width, classes)

    def description(self) -> dict[str, Any]:
        """A description from which the same module can be built; JSON."""
        return {"family": "resnet", "depth": self.depth, "width": self.width, **self.colours}


def resnet_from_description(description: Mapping[str, Any]) -> ResNet:
    """The module that `ResNet.description` describes, with random weights; the checkpoint holds the exits."""
    return ResNet(description["depth"], description["width"], description["mean"], description["std"])
