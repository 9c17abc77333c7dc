"""Int8 layers: those of texts by ONNX Runtime's dynamic quantiser, convolutions with scales from selection rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.lean import quiet
from pipeline.models.deploy.folder import EMBEDDING, FLOAT32, INT8
from pipeline.models.deploy.graphs import Written
from pipeline.models.deploy.segments import Arrays, Graph, arrays_of
from pipeline.results import Manifest
from pipeline.results.traces import SELECTION
from pipeline.tasks.stores import open_store

ROWS, BATCH = 128, 32
"""Images from whose activations scales are taken, and how many run together."""


def calibration_rows(manifest: Manifest, backbone: str) -> list[Arrays] | None:
    """Batches of selection rows for the scales of convolutions; None for texts, whose scales need no rows.

    Raises:
        ArtifactError: the split is missing.
    """
    if manifest.modality == "text":
        return None
    store = open_store(manifest, backbone, SELECTION, "cpu")
    rows = np.sort(np.random.default_rng(0).permutation(len(store))[:ROWS])
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return [arrays_of(store.batch(part, "cpu")) for part in parts]


def write_int8(folder: Path, written: Written, images: Sequence[Arrays] | None = None) -> Written:
    """Write the int8 form of each layer, and of texts' poolers and channels; embedding and heads stay float32.

    Weights have a scale per column or output channel. Activations of texts are rounded when they are known, with one
    scale for the whole tensor; those of convolutions with scales that were taken before, from rows, so that an answer
    does not depend on the other rows of its batch.

    Args:
        images: batches of rows for the scales of convolutions; None for texts.
    """
    with quiet():  # the quantiser wishes for its own pre-processing, which these graphs have had
        return _dynamic(folder, written) if images is None else _calibrated(folder, written, images)


def _dynamic(folder: Path, written: Written) -> Written:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = {name: name.replace(FLOAT32, INT8) for name in (*written.layers, *written.exits)}
    for name, into in names.items():
        quantize_dynamic(
            folder / name,
            folder / into,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},  # not the products of two activations
        )
    return Written(tuple(names[name] for name in written.layers), tuple(names[name] for name in written.exits))


def _calibrated(folder: Path, written: Written, images: Sequence[Arrays]) -> Written:
    """Layers whose convolutions run in int8; exits are those of float32, which are small."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Given(CalibrationDataReader):
        def __init__(self, inputs: Sequence[Arrays]) -> None:
            self.inputs = iter(inputs)

        def get_next(self) -> Arrays | None:
            """The inputs of the next call; None after the last."""
            return next(self.inputs, None)

    names = {name: name.replace(FLOAT32, INT8) for name in written.layers}
    for name, inputs in _inputs_of_layers(folder, written, images).items():
        quantize_static(
            folder / name,
            folder / names[name],
            Given(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return Written(tuple(names[name] for name in written.layers), written.exits)


def _inputs_of_layers(folder: Path, written: Written, batches: Sequence[Arrays]) -> Mapping[str, list[Arrays]]:
    """What each layer's float32 graph is given, by its file."""
    embedding = Graph(folder / EMBEDDING, 1)
    layers = [Graph(folder / name, 1) for name in written.layers]
    found: dict[str, list[Arrays]] = {name: [] for name in written.layers}
    for batch in batches:
        state: dict[str, Any] = dict(zip(embedding.outputs, embedding(batch), strict=True))
        for name, layer in zip(written.layers, layers, strict=True):
            found[name].append({part: state[part] for part in layer.inputs})
            (state["hidden"],) = layer(state)
    return found
