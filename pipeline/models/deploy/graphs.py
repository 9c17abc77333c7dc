"""A model as ONNX graphs: the embedding, each layer, and the exit. It needs Torch; what answers does not import it.

A layer is a graph from the parts of the state to the next hidden state, an exit one from the state and the weights of
its head to logits and channels. Layers that share their weights (ALBERT) are one graph, as are exits with one pooler.
"""

import copy
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.models.deploy.folder import EMBEDDING, EXIT, FLOAT32, HEADS, LAYER, graph_file
from pipeline.models.multi_exit import MultiExit

Tensors = dict[str, Tensor]
SIZES = ((2, 7), (3, 11))
"""Rows and tokens of two examples. A graph takes any size on an axis where their shapes differ."""
KEEP = "keep"
"""The part of the state that only the exit reads."""


@dataclass(frozen=True)
class Written:
    """The graphs of a model in one precision: the file of each layer, and of each exit. Parts that share their weights
    share their file."""

    layers: tuple[str, ...]
    exits: tuple[str, ...]


def write_graphs(model: MultiExit, folder: Path, images: bool) -> Written:
    """Write the float32 graphs of a model, and heads.npz with the weights of its exits' heads."""
    backbone = _without_tables(model.eval().backbone)
    with torch.no_grad():
        batches = [_image(rows) if images else _tokens(rows, tokens) for rows, tokens in SIZES]
        states = [backbone.embed(batch) for batch in batches]
        parts = tuple(name for name in states[0]._fields if getattr(states[0], name) is not None)
        carried = tuple(name for name in parts if name != KEEP)
        _write(_Embedding(backbone, tuple(batches[0]), carried), batches, folder / EMBEDDING, carried)
        files: dict[Hashable, str] = {}
        after = []
        for index in range(backbone.layers):
            if (kind := _weights_of(backbone, index)) not in files:
                files[kind] = graph_file(LAYER, len(files) + 1, FLOAT32)
                graph = _Layer(backbone, index, type(states[0]), carried)
                _write(graph, [_parts(state, carried) for state in states], folder / files[kind], ("hidden_after",))
            states = [backbone.layer(index, state) for state in states]
            after.append(states)
        exits = _write_exits(model, backbone, after, parts, folder)
    heads: dict[str, Any] = {
        f"{i}.{name}": value.numpy() for i, head in enumerate(model.heads) for name, value in head.state_dict().items()
    }
    np.savez(folder / HEADS, **heads)
    return Written(tuple(files[_weights_of(backbone, index)] for index in range(backbone.layers)), exits)


def shape_of(model: MultiExit, precisions: Mapping[str, Written]) -> dict[str, Any]:
    """What `Segments.open` reads of a folder's description; JSON."""
    return {
        "exits": list(model.exits),
        "outputs": model.outputs,
        "channels": list(model.channels),
        "precisions": {name: vars(written) for name, written in precisions.items()},
    }


def _tokens(rows: int, tokens: int) -> Tensors:
    ids = torch.zeros(rows, tokens, dtype=torch.int64)
    keep = torch.ones(rows, tokens, dtype=torch.bool)
    keep[1:, tokens - 2 :] = False
    return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), KEEP: keep}


def _image(rows: int) -> Tensors:
    return {"image": torch.zeros(rows, 32, 32, 3, dtype=torch.uint8)}


def _without_tables(backbone: Any) -> Any:
    """The backbone for PyTorch's exporter, which takes dictionaries of tensors for constants."""
    copied = copy.copy(backbone)
    for name, value in vars(backbone).items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict):
            setattr(copied, name, MappingProxyType(value))
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            setattr(copied, name, [MappingProxyType(one) if isinstance(one, dict) else one for one in value])
    return copied


def _weights_of(backbone: Any, index: int) -> Hashable:
    """The same for layers that share their weights."""
    return tuple(backbone.blocks_of(index)) if hasattr(backbone, "blocks_of") else index


def _pooler_of(model: MultiExit, exit_index: int) -> Hashable:
    """The same for exits that share their pooler; images have none."""
    tables = getattr(model.backbone, "pooler_tables", None)
    return None if tables is None else id(tables[model.exits[exit_index] - 1])


def _parts(state: Any, names: Sequence[str]) -> Tensors:
    return {name: getattr(state, name) for name in names}


def _state(kind: Any, names: Sequence[str], given: Sequence[Tensor]) -> Any:
    """A state with some of its parts; the others are None."""
    parts = dict(zip(names, given, strict=True))
    return kind(**{name: parts.get(name) for name in kind._fields})


class _Embedding(nn.Module):
    """The inputs to the parts of the state."""

    def __init__(self, backbone: Any, inputs: tuple[str, ...], carried: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone, self.inputs, self.carried = backbone, inputs, carried

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        state = self.backbone.embed(dict(zip(self.inputs, given, strict=True)))
        return tuple(_parts(state, self.carried).values())


class _Layer(nn.Module):
    """The parts of the state to the next hidden state."""

    def __init__(self, backbone: Any, index: int, kind: Any, carried: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone, self.index, self.kind, self.carried = backbone, index, kind, carried

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        return (self.backbone.layer(self.index, _state(self.kind, self.carried, given)).hidden,)


class _Exit(nn.Module):
    """Parts of the state, then weight and bias of a head, to the exit's logits and channels."""

    def __init__(self, backbone: Any, index: int, channels: nn.ModuleDict, kind: Any, reads: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone, self.index, self.channels, self.kind, self.reads = backbone, index, channels, kind, reads

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        *parts, weight, bias = given
        pooled = self.backbone.pool(self.index, _state(self.kind, self.reads, parts))
        channels = (torch.sigmoid(channel(pooled)[:, 0]) for channel in self.channels.values())
        return (linear(pooled, weight, bias), *channels)


def _write_exits(
    model: MultiExit, backbone: Any, after: Sequence[Sequence[Any]], parts: Sequence[str], folder: Path
) -> tuple[str, ...]:
    """Write a graph for each pooler; the file of each exit.

    Args:
        after: two examples of the state after each layer.
    """
    mean = getattr(backbone, "pooling", None) == "mean"
    reads = tuple(name for name in parts if name == "hidden" or (name == KEEP and mean))
    kinds = [_pooler_of(model, index) for index in range(len(model.exits))]
    files = {kind: graph_file(EXIT, i + 1, FLOAT32) for i, kind in enumerate(dict.fromkeys(kinds))}
    heads: Any = model.heads
    for kind, file in files.items():
        first = kinds.index(kind)
        last = len(kinds) - 1 - kinds[::-1].index(kind)  # images are wider there
        examples = []
        for place, index in enumerate((first, last)):
            # Of one head, and of two at once: a graph that takes any number answers for several exits.
            given = {name: torch.cat([value] * (place + 1)) for name, value in heads[index].state_dict().items()}
            examples.append(_parts(after[model.exits[index] - 1][place], reads) | given)
        graph = _Exit(backbone, model.exits[first] - 1, model.channels, type(after[0][0]), reads)
        _write(graph, examples, folder / file, ("logits", *model.channels))
    return tuple(files[kind] for kind in kinds)


def _write(module: nn.Module, examples: Sequence[Tensors], path: Path, outputs: tuple[str, ...]) -> None:
    """Write a module as a graph, which takes any size where two examples of its inputs differ."""
    first, second = examples
    axes = tuple(_different(first[name].shape, second[name].shape) for name in first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch uses what it calls deprecated
        program = torch.onnx.export(
            module.eval(),
            tuple(first.values()),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=list(first),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    graph = program.model
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()  # lines of this machine's files
    graph.metadata_props.clear()
    program.save(str(path))


def _different(first: torch.Size, second: torch.Size) -> dict[int, Any]:
    sizes = enumerate(zip(first, second, strict=True))
    return {axis: torch.export.Dim.AUTO for axis, (one, other) in sizes if one != other}
