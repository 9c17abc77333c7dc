"""Parameters of a backbone, counted without loading it."""

from math import prod
from pathlib import Path

from safetensors import safe_open

from pipeline.models.encoders.tensors import LAYER, OF_ENCODER, POOLER
from pipeline.models.flops import ResNetShape
from pipeline.models.names import DEMO_POSITIONS, BackboneSpec
from pipeline.models.weights import weight_files

DEMO_WIDTH, DEMO_INNER = 64, 128
"""Widths of the demo encoder."""


def parameters_of(spec: BackboneSpec, mirror: Path | None, vocabulary: int | None) -> int:
    """Number of parameters of a backbone with one exit, to a few percent; exits of a linear layer add under one.

    Args:
        mirror: folder in the hub's layout.
        vocabulary: tokens of a text task, for a backbone that starts from random weights.

    Raises:
        DataError: the pretrained weights cannot be had.
    """
    if spec.modality == "image":
        return _residual(spec)
    if spec.hub is None:
        return _demo(vocabulary or 0)
    return sum(_pretrained(path, spec.layers) for path in weight_files(spec.hub, mirror))


def _pretrained(path: Path, layers: int | None) -> int:
    """Elements of an encoder's tensors in a file, whose header alone is read.

    Layers that are not kept do not count, nor heads, nor, where each layer has a pooler, any but the first.
    """
    count = 0
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            at, pooler = LAYER.search(name), POOLER.fullmatch(name)
            kept = at is None or layers is None or int(at[1]) < layers
            if OF_ENCODER.match(name) and kept and (pooler is None or int(pooler[1]) == 0):
                count += prod(file.get_slice(name).get_shape())
    return count


def _demo(vocabulary: int) -> int:
    """Embeddings, a layer that all layers share, and the pooler."""
    h, inner = DEMO_WIDTH, DEMO_INNER
    return (vocabulary + DEMO_POSITIONS) * h + 6 * (h * h + h) + 2 * h * inner


def _residual(spec: BackboneSpec) -> int:
    """Convolutions of 3 x 3 with their norms."""
    shape = ResNetShape(spec.depth, spec.width, classes=1)
    count, before = 29 * spec.width, spec.width
    for channels in shape.channels():
        count += 9 * (before + channels) * channels + 4 * channels
        before = channels
    return count
