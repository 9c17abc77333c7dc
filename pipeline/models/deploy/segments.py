"""The graphs of an exported model in ONNX Runtime, run layer by layer; it needs NumPy and ONNX Runtime alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.criteria.base import Criterion
from pipeline.evaluation.leaving import Leaving, Rule
from pipeline.models.deploy.folder import EMBEDDING, HEADS, INT8

Arrays = Mapping[str, np.ndarray]
LEFT_OUT = ("SkipLayerNormFusion",)
"""Optimisations of ONNX Runtime that slow down: its fused sum and norm takes five times the two apart (98 against 19
microseconds for 24 tokens of 768)."""


def arrays_of(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A batch, of arrays or of tensors on the CPU, as the graphs take it; nothing is copied."""
    return {name: np.asarray(values) for name, values in batch.items()}


def session(model: Path | bytes, threads: int) -> Any:
    """A graph in ONNX Runtime on the CPU.

    Args:
        model: a graph's file, or its content.
        threads: compute threads. Where there are several they stop turning as a call ends: each graph has its own,
            and those of one layer would take the cores of the next.
    """
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    if threads > 1:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    given = str(model) if isinstance(model, Path) else model
    return InferenceSession(given, options, providers=["CPUExecutionProvider"], disabled_optimizers=[*LEFT_OUT])


class Graph:
    """A graph in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = session(path, threads)
        self.inputs = [one.name for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs()]
        self.any_size = {one.name: not isinstance(one.shape[0], int) for one in self._session.get_inputs() if one.shape}
        """Whether an input's first axis takes any size."""

    def __call__(self, given: Arrays) -> list[np.ndarray]:
        """The outputs, for inputs that may hold more than the graph reads."""
        outputs: list[np.ndarray] = self._session.run(None, {name: given[name] for name in self.inputs})
        return outputs


@dataclass(frozen=True)
class Segments:
    """The graphs of one precision.

    Attributes:
        layers: the graph of each layer; one object where layers share their weights.
        poolers: the graph of each exit; one object where exits share their pooler.
        exits: layers with an exit, counted from 1, ascending.
        heads: weight (outputs, width) and bias (outputs,) of each exit's head.
        alone: whether rows run one by one. Int8 rounds texts by the largest value of a batch, so that an answer would
            depend on the other rows; convolutions have scales of their own.
    """

    embedding: Graph
    layers: tuple[Graph, ...]
    poolers: tuple[Graph, ...]
    exits: tuple[int, ...]
    heads: tuple[tuple[np.ndarray, np.ndarray], ...]
    outputs: int
    channels: tuple[str, ...]
    alone: bool

    @classmethod
    def open(cls, folder: Path, description: Mapping[str, Any], precision: str, threads: int = 1) -> "Segments":
        """The graphs of a folder whose description was read.

        Raises:
            ParamsError: a precision that was not exported.
        """
        if precision not in description["precisions"]:
            raise unknown("precision", precision, description["precisions"], key="precision")
        if threads < 1:
            raise ParamsError(f"threads: {threads} is none; give 1 or more")
        files = description["precisions"][precision]
        names = dict.fromkeys((EMBEDDING, *files["layers"], *files["exits"]))
        graphs = {name: Graph(folder / name, threads) for name in names}
        with np.load(folder / HEADS, allow_pickle=False) as stored:
            heads = tuple(
                (stored[f"{index}.weight"], stored[f"{index}.bias"]) for index in range(len(description["exits"]))
            )
        return cls(
            embedding=graphs[EMBEDDING],
            layers=tuple(graphs[name] for name in files["layers"]),
            poolers=tuple(graphs[name] for name in files["exits"]),
            exits=tuple(description["exits"]),
            heads=heads,
            outputs=description["outputs"],
            channels=tuple(description["channels"]),
            alone=precision == INT8 and "input_ids" in graphs[EMBEDDING].inputs,
        )

    def rule(self, criterion: Criterion | None, threshold: float) -> Rule:
        """The rule by which rows of this model leave; raises as `Rule` does."""
        return Rule(criterion, threshold, len(self.exits), self.outputs, self.channels)

    def answer(self, batch: Arrays, rule: Rule) -> Leaving:
        """Answer a batch, each row at its own exit.

        Args:
            batch: input_ids and token_type_ids, (n, tokens) int64, and `keep`, (n, tokens) bool, where rows are padded;
                or image, (n, 32, 32, 3) uint8.

        Raises:
            InvalidLogitsError: an exit answered NaN.
        """
        rows = len(next(iter(batch.values())))
        together = Leaving(rule, rows)
        for part in [slice(i, i + 1) for i in range(rows)] if self.alone else [slice(None)]:
            leaving = self._answer(unpadded(batch, part) if self.alone else batch, rule)
            together.logits[part], together.exit_index[part] = leaving.logits, leaving.exit_index
        return together

    def record(self, batch: Arrays) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits of all exits, (n, exits, outputs), and the channels, (n, exits) each, by the passes of `answer`."""
        rows = len(next(iter(batch.values())))
        parts = [unpadded(batch, slice(i, i + 1)) for i in range(rows)] if self.alone else [batch]
        every = [[*self._exits(part)] for part in parts]
        logits = np.concatenate([np.stack([answers[0] for answers in one], axis=1) for one in every])
        channels = {
            name: np.concatenate([np.stack([answers[1 + i] for answers in one], axis=1) for one in every])
            for i, name in enumerate(self.channels)
        }
        return logits, channels

    def place_of(self, rule: Rule) -> int:
        """Which of an exit's answers a rule reads."""
        return 0 if rule.reads == "logits" else 1 + self.channels.index(rule.reads)

    def _answer(self, batch: Arrays, rule: Rule) -> Leaving:
        leaving = Leaving(rule, len(next(iter(batch.values()))))
        ask = partial(self._ask, reads=self.place_of(rule))
        state, current = self.embed(batch), 0
        for index, layer in enumerate(self.layers):
            (hidden,) = layer(state)
            state = {**state, "hidden": hidden}
            if index + 1 != self.exits[current]:
                continue
            stay = leaving.after_layer(current, state, ask)
            if stay is not None:
                if not len(stay):
                    break
                # A part that is the same for all rows, such as a bias by distance, has one row.
                state = {name: part if len(part) == 1 else part[stay] for name, part in state.items()}
            current += 1
        return leaving

    def _ask(self, exits: Sequence[int], states: Sequence[Arrays], reads: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The answers of some exits, from the states behind their layers. A shared graph takes them at once, and reads
        its weights once; but for rounding that changes nothing, except in int8."""
        hidden = [state["hidden"] for state in states]
        shared = len({(id(self.poolers[at]), one.shape) for at, one in zip(exits, hidden, strict=True)}) == 1
        heads = self.poolers[exits[0]].any_size["weight"]  # not in folders of before
        if len(exits) == 1 or self.alone or not (shared and heads):
            every = [self.exit(at, state) for at, state in zip(exits, states, strict=True)]
            return [(answers[0], answers[reads]) for answers in every]
        together = {
            "hidden": np.concatenate(hidden),
            "weight": np.concatenate([self.heads[at][0] for at in exits]),
            "bias": np.concatenate([self.heads[at][1] for at in exits]),
        }
        if "keep" in states[0]:
            together["keep"] = np.concatenate([state["keep"] for state in states])
        given = self.poolers[exits[0]](together)
        each, rows = np.arange(len(exits)), len(hidden[0])
        # Each state has met every head.
        logits = np.ascontiguousarray(given[0].reshape(len(exits), rows, len(exits), self.outputs)[each, :, each])
        values = logits if reads == 0 else given[reads].reshape(len(exits), rows)
        return list(zip(logits, values, strict=True))

    def _exits(self, batch: Arrays) -> Iterator[list[np.ndarray]]:
        """The answers of each exit: logits, then channels."""
        state, current = self.embed(batch), 0
        for index, layer in enumerate(self.layers):
            (state["hidden"],) = layer(state)
            if index + 1 == self.exits[current]:
                yield self.exit(current, state)
                current += 1

    def embed(self, batch: Arrays) -> dict[str, np.ndarray]:
        """The parts of the state before layer 1; each has a row per row of the batch."""
        given = dict(batch)
        if "input_ids" in given and "keep" not in given:
            given["keep"] = np.ones(given["input_ids"].shape, dtype=bool)
        state = dict(zip(self.embedding.outputs, self.embedding(given), strict=True))
        return state | {name: given[name] for name in ("keep",) if name in given}

    def exit(self, index: int, state: Arrays) -> list[np.ndarray]:
        """What an exit, counted from 0, answers: logits (n, outputs), then each channel, (n,)."""
        weight, bias = self.heads[index]
        return self.poolers[index]({**state, "weight": weight, "bias": bias})


def unpadded(batch: Arrays, part: slice) -> dict[str, np.ndarray]:
    """One row of a batch, as a slice, without the padding behind it."""
    row = {name: array[part] for name, array in batch.items()}
    keep = row.pop("keep", None)
    return row if keep is None else {name: array[:, : int(keep.sum())] for name, array in row.items()}
