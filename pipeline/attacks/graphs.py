"""The models of an attack in ONNX Runtime, float32: the victim, and the sentence encoder.

The graphs are those of an exported model (`pipeline.models.deploy`), kept under `runs/` by the content of the weights.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.identity.code import CodeIdentity, code_identity
from pipeline.layout import HERE
from pipeline.models.deploy.engine import GraphEngine
from pipeline.models.deploy.folder import FLOAT32
from pipeline.models.deploy.segments import Segments
from pipeline.storage import claimed, content_key, file_hash, read_json, whole_folder, write_json

if TYPE_CHECKING:
    from pipeline.models.multi_exit import MultiExit

_SCHEMA, _SHAPE = 1, "shape.json"


def segments_of(load: Callable[[], "MultiExit"], files: tuple[Path, ...], threads: int) -> Segments:
    """A model's graphs; made on the first call for its files, which takes some 20 seconds.

    Args:
        load: the model, in eval mode.
        files: those that it is loaded from, whose content is the key.
    """
    key = content_key({"files": file_hash(*files), "code": writers().hash, "libraries": _libraries()})
    folder = HERE.graphs(key)
    with claimed(HERE.claims, f"graphs-{key}"):
        if not (folder / _SHAPE).is_file():
            from pipeline.models.deploy.graphs import shape_of, write_graphs

            model = load()
            with whole_folder(folder) as partial:
                written = write_graphs(model, partial, images=False)
                write_json(partial / _SHAPE, {"schema": _SCHEMA, **shape_of(model, {FLOAT32: written})})
        return Segments.open(folder, read_json(folder / _SHAPE, _SCHEMA, f"remove {folder}"), FLOAT32, threads)


@cache
def writers() -> CodeIdentity:
    """The code that makes graphs: the exporter, and the model that it traces."""
    return code_identity(["pipeline.models.deploy.graphs:write_graphs", "pipeline.models.multi_exit:load_checkpoint"])


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "onnx", "onnxscript")}


def means_of(folder: Path, threads: int) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """A sentence encoder's mean over the tokens of its last hidden states: a batch of n texts to (n, width).

    As a model, the mean is the input of a linear exit, whose weights are the identity here.

    Raises:
        PipelineError: the folder holds no encoder of a known family.
    """

    def load() -> "MultiExit":
        from pipeline.models.encoders.encoder import build_encoder
        from pipeline.models.multi_exit import MultiExit
        from pipeline.models.names import BackboneSpec

        encoder = build_encoder(BackboneSpec("sentence_encoder", str(folder), "mean"))
        encoder.part_poolers("linear")
        model = MultiExit(encoder, (encoder.layers,), encoder.width)
        torch.nn.init.eye_(model.heads[0].get_parameter("weight"))
        torch.nn.init.zeros_(model.heads[0].get_parameter("bias"))
        return model.eval()

    segments = segments_of(load, (folder / "config.json", folder / "model.safetensors"), threads)
    run = GraphEngine(segments, None)
    return lambda batch: torch.from_numpy(run(batch).logits)
