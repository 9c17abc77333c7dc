"""Int8 layers and exits, by ONNX Runtime's dynamic quantiser."""

import logging
from pathlib import Path

from pipeline.models.deploy.folder import FLOAT32, INT8
from pipeline.models.deploy.graphs import Written


def write_int8(folder: Path, written: Written) -> Written:
    """Write the int8 form of each layer and of the exits' poolers; embedding and heads stay float32.

    Weights have a scale per column. Activations are rounded when they are known, with one scale for the whole tensor.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    names = {name: name.replace(FLOAT32, INT8) for name in (*written.layers, *written.exits)}
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it asks for its own pre-processing, which these graphs have had
    try:
        for name, into in names.items():
            quantize_dynamic(
                folder / name,
                folder / into,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},  # not the products of two activations
            )
    finally:
        root.setLevel(level)
    return Written(tuple(names[name] for name in written.layers), tuple(names[name] for name in written.exits))
