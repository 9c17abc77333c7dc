"""FLOPs of a transformer encoder with exits, counted from its shape. A multiply-add is two FLOPs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EncoderShape:
    """What the FLOP count needs of an encoder.

    Attributes:
        layers: transformer layers that exist in the model.
        hidden, intermediate: widths of a layer.
        embedding: width of the token embedding; where it differs from hidden it is projected (ALBERT).
        head_width: width of the pooled vector that each exit reads; 0 if there is no tanh pooler.
        classes: outputs of each exit.
        full_layers: layers of the plain model to compare with; 0: this one's.
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

    A layer at length T costs 2T(4ha + 2hf) for its projections and 4T^2 a for attention, a being the width of its
    attention heads together (h, unless some were pruned); the embedding costs 2T e h where it is projected; an exit
    costs its pooler and its linear layer. A row that leaves at exit j has paid for the heads of exits 1..j. Softmax,
    layer norm and activations (under 1%) are left out.

    Args:
        lengths: tokens of each row, (n,).
        exits: layer of each exit, counted from 1, (exits,).

    Returns:
        (n, exits) FLOPs when leaving at each exit; (n,) FLOPs of the plain model: all layers and heads, one exit.
    """
    t = np.asarray(lengths, dtype=np.float64)[:, None]
    h, f, inner = shape.hidden, shape.intermediate, shape.inner

    def layers(attention: np.ndarray) -> np.ndarray:
        found: np.ndarray = 2 * t * (4 * h * attention + 2 * h * f * inner) + 4 * t * t * attention
        return found

    whole = layers(np.array([h * inner], dtype=np.float64))[:, 0]
    run = layers(np.asarray(shape.attention or [h * inner] * shape.layers, dtype=np.float64)).cumsum(axis=1)
    embed = 2 * t * shape.embedding * h if shape.embedding != h else np.zeros_like(t)
    head = 2 * h * shape.head_width + 2 * (shape.head_width or h) * shape.classes
    order = np.arange(1, len(exits) + 1)
    at_exit = embed + run[:, np.asarray(exits, dtype=int) - 1] + head * order[None, :]
    return at_exit, embed[:, 0] + whole * (shape.full_layers or shape.layers) + head
