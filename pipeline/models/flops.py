"""FLOPs of encoders and residual networks with exits, counted from their shapes. A multiply-add is two FLOPs."""

from dataclasses import dataclass

import numpy as np

from pipeline.models.names import Placement


@dataclass(frozen=True)
class EncoderShape:
    """The shape of an encoder, for the FLOP count.

    Attributes:
        layers: transformer layers of the model.
        hidden, intermediate: widths of a layer.
        embedding: width of the token embedding; where it differs from hidden it is projected (ALBERT).
        head_width: width of the pooled vector that each exit reads; 0 if there is no tanh pooler.
        classes: outputs of each exit.
        full_layers: layers of the plain model that speed-ups are relative to; 0: this model's.
        attention: width of all attention heads of each layer, where some were pruned; empty: hidden.
        inner: blocks that a layer runs one after another (ALBERT's inner_group_num).
    """

    layers: int
    hidden: int
    intermediate: int
    embedding: int
    head_width: int
    classes: int
    full_layers: int = 0
    attention: tuple[int, ...] = ()
    inner: int = 1


def encoder_flops(shape: EncoderShape, lengths: np.ndarray, exits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs per row and exit, and of the plain model.

    A layer at length T costs 2T(4ha + 2hf) for its projections and 4T^2 a for attention, where a is the total width of
    its attention heads (h, unless some were pruned). The embedding costs 2T e h where it is projected. An exit costs
    its pooler and its linear layer; a row that leaves at exit j pays for the heads of exits 1..j. Softmax, layer norm
    and activations (under 1%) are left out.

    Args:
        lengths: tokens of each row, (n,).
        exits: layer of each exit, counted from 1, (exits,).

    Returns:
        (n, exits) FLOPs when leaving at each exit; (n,) FLOPs of the plain model: all layers and heads, one exit.
    """
    t = np.asarray(lengths, dtype=np.float64)[:, None]
    h, f, inner = shape.hidden, shape.intermediate, shape.inner

    def layers(attention: np.ndarray) -> np.ndarray:
        flops: np.ndarray = 2 * t * (4 * h * attention + 2 * h * f * inner) + 4 * t * t * attention
        return flops

    whole = layers(np.array([h * inner], dtype=np.float64))[:, 0]
    run = layers(np.asarray(shape.attention or [h * inner] * shape.layers, dtype=np.float64)).cumsum(axis=1)
    embed = 2 * t * shape.embedding * h if shape.embedding != h else np.zeros_like(t)
    head = 2 * h * shape.head_width + 2 * (shape.head_width or h) * shape.classes
    order = np.arange(1, len(exits) + 1)
    at_exit = embed + run[:, np.asarray(exits, dtype=int) - 1] + head * order[None, :]
    return at_exit, embed[:, 0] + whole * (shape.full_layers or shape.layers) + head


SIX_SHARES = (0.15, 0.30, 0.45, 0.60, 0.75, 0.90)
"""Where Shallow-Deep puts its six internal classifiers, as shares of the FLOPs (Kaya et al. 2019)."""


@dataclass(frozen=True)
class ResNetShape:
    """The shape of a CIFAR ResNet, for the FLOP count (He et al. 2016, 4.2): a stem and three stages of n basic blocks.

    Attributes:
        depth: 6n + 2, layers with weights on the way to the last exit.
        width: channels of the first stage; the second has twice, the third four times as many.
        classes: outputs of each exit.
        size: height and width of the images; halved by the first block of stages 2 and 3.
    """

    depth: int
    width: int
    classes: int
    size: int = 32

    @property
    def blocks(self) -> int:
        """Basic blocks of two convolutions, 3n."""
        return (self.depth - 2) // 2

    def channels(self) -> list[int]:
        """Channels after each block, (blocks,)."""
        per_stage = self.blocks // 3
        return [self.width * 2 ** (index // per_stage) for index in range(self.blocks)]


def block_flops(shape: ResNetShape) -> np.ndarray:
    """FLOPs of each block, (blocks,): two 3x3 convolutions, 2 * 9 * H * W * (c_in * c + c * c).

    Shortcuts have no weights (option A: stride and zero-padded channels) and no cost. Batch norm, activations,
    additions and average pooling (under 1%) are left out.
    """
    out = []
    before, size = shape.width, shape.size
    for channels in shape.channels():
        if channels != before:
            size //= 2
        out.append(2 * 9 * size * size * (before * channels + channels * channels))
        before = channels
    return np.array(out, dtype=np.float64)


def stem_flops(shape: ResNetShape) -> float:
    """FLOPs of the first 3x3 convolution, from three colours to `width` channels."""
    return 2.0 * 9 * shape.size**2 * 3 * shape.width


def resnet_flops(shape: ResNetShape, rows: int, exits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs per row and exit, and of the plain model; all rows are equal, since all images have one size.

    A row that leaves at exit j pays for the heads (linear layers) of exits 1..j.

    Args:
        rows: n.
        exits: block of each exit, counted from 1, (exits,).

    Returns:
        (n, exits) FLOPs when leaving at each exit; (n,) FLOPs of all blocks with one head.
    """
    at = np.asarray(exits, dtype=np.int64) - 1
    trunk = stem_flops(shape) + np.cumsum(block_flops(shape))
    head = 2.0 * np.array(shape.channels()) * shape.classes
    at_exit = trunk[at] + np.cumsum(head[at])
    return np.tile(at_exit, (rows, 1)), np.full(rows, trunk[-1] + head[-1])


def exit_layers(shape: ResNetShape, placement: Placement) -> tuple[int, ...]:
    """Blocks with a classifier, counted from 1; the last block is always among them.

    `every_two_convs` puts an exit after every block (BERT Loses Patience, Appendix A). `six` puts exits after the
    blocks nearest to 15, 30, 45, 60, 75 and 90% of the FLOPs, and after the last: blocks 4, 8, 12, 16, 20, 24 of
    ResNet-56's 27, as in Shallow-Deep's code. In a shallow network some of the six coincide and count once.
    """
    if placement == "every_two_convs":
        return tuple(range(1, shape.blocks + 1))
    trunk = stem_flops(shape) + np.cumsum(block_flops(shape))
    share = trunk / trunk[-1]
    near = {int(np.argmin(np.abs(share - target))) + 1 for target in SIX_SHARES}
    return tuple(sorted(near | {shape.blocks}))
