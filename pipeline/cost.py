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
    """

    layers: int
    hidden: int
    intermediate: int
    embedding: int
    head_width: int
    classes: int


def encoder_flops(shape: EncoderShape, lengths: np.ndarray, exits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs per row and exit, and of the plain model.

    A layer at length T costs 2T(4h^2 + 2hf) for its projections and 4T^2 h for attention; the embedding costs
    2T e h where it is projected; an exit costs its pooler and its linear layer. A row that leaves at exit j has paid
    for the heads of exits 1..j. Softmax, layer norm and activations (under 1%) are left out.

    Args:
        lengths: tokens of each row, (n,).
        exits: layer of each exit, counted from 1, (exits,).

    Returns:
        (n, exits) FLOPs when leaving at each exit; (n,) FLOPs of all layers with one head.
    """
    t = np.asarray(lengths, dtype=np.float64)
    h, f = shape.hidden, shape.intermediate
    layer = 2 * t * (4 * h * h + 2 * h * f) + 4 * t * t * h
    embed = 2 * t * shape.embedding * h if shape.embedding != h else np.zeros_like(t)
    head = 2 * h * shape.head_width + 2 * (shape.head_width or h) * shape.classes
    order = np.arange(1, len(exits) + 1)
    at_exit = embed[:, None] + layer[:, None] * np.asarray(exits)[None, :] + head * order[None, :]
    return at_exit, embed + layer * shape.layers + head
