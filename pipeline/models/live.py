"""The live engine: it runs layer by layer, drops rows as they leave, and uses the criteria of replay."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InvalidLogitsError, UnsupportedError
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.criteria.base import State, answers_itself, refuse_other_fit
from pipeline.evaluation.point import criterion_of
from pipeline.models.multi_exit import MultiExit
from pipeline.models.precision import full_float32
from pipeline.results import OperatingPoint


@dataclass(frozen=True)
class Answers:
    """The answers to a batch, on the CPU: logits (n, outputs) float32 of the exit that answered each row, and that
    exit's 0-based index (n,) int64."""

    logits: Tensor
    exit_index: Tensor


class LiveEngine:
    """Early-exit inference with one criterion at one threshold; each row leaves by itself.

    At batch 1 the cost is layer, head and the criterion's step. In a larger batch, rows that left are removed, so that
    later layers run on the remaining rows.

    Decisions are made in NumPy on every device, with the arithmetic of replay. On a GPU that takes one transfer of
    (n, outputs) numbers per exit, the only point where the host waits; the index of the remaining rows is sent without
    waiting (docs/live-engine.md).

    Args:
        model: the model, in eval mode.
        criterion: the criterion; None runs all layers and the last head only.
        threshold: a row leaves at the first exit whose score reaches it.

    Raises:
        UnsupportedError: the criterion has no meaning for a regression model, is a bound, or reads a channel that the
            model lacks.
        ArtifactError: the criterion was fitted to a model of other exits or classes.
    """

    def __init__(self, model: MultiExit, criterion: Criterion | None, threshold: float = np.inf) -> None:
        if criterion is not None and model.outputs == 1 and not criterion.regression:
            raise UnsupportedError(f"criterion {criterion.name!r} has no meaning for regression; use patience")
        if criterion is not None and not criterion.causal:
            raise UnsupportedError(
                f"criterion {criterion.name!r} is a bound that only replay can compute; choose another"
            )
        self.reads = criterion.reads if criterion is not None else "logits"
        if criterion is not None and self.reads != "logits" and self.reads not in model.channels:
            raise UnsupportedError(
                f"criterion {criterion.name!r} reads channel {self.reads!r}, which the model lacks; "
                f"use a model of method {criterion.recorded_by!r}"
            )
        if criterion is not None:
            refuse_other_fit(criterion, len(model.exits), model.outputs)
        full_float32()  # as the traces that the threshold comes from
        self.answers_itself = criterion is not None and answers_itself(criterion)
        self.model = model
        self.criterion = criterion
        self.threshold = threshold

    @classmethod
    def at(cls, model: MultiExit, point: OperatingPoint) -> "LiveEngine":
        """The engine of a model at a stored operating point; raises as the constructor and `criterion_of` do."""
        return cls(model, criterion_of(point), point.limit)

    @torch.inference_mode()
    def __call__(self, batch: Mapping[str, Tensor]) -> Answers:
        """Answer a batch.

        Raises:
            InvalidLogitsError: an exit answered NaN.
        """
        model, criterion, exits = self.model, self.criterion, self.model.exits
        backbone = model.backbone
        last = len(exits) - 1
        current = 0
        state = backbone.embed(batch)
        rows = len(next(iter(batch.values())))
        answers = np.empty((rows, model.outputs), dtype=np.float32)
        exit_index = np.empty(rows, dtype=np.int64)
        active: slice | np.ndarray = slice(None)  # positions in the batch of the rows that still run
        memory: State | None = None
        for index in range(backbone.layers):
            state = backbone.layer(index, state)
            if index + 1 != exits[current]:
                continue
            if criterion is None and current < last:
                current += 1
                continue
            logits, values = model.read(current, state, self.reads)
            exit_answers = exit_logits = _on_host(logits)
            if criterion is None or current == last:
                answers[active], exit_index[active] = exit_answers, current
                break
            exit_values = exit_logits if values is logits else _on_host(values)
            if memory is None:
                memory = criterion.start(len(exit_logits), exit_values)
            memory, score = criterion.step(memory, exit_values)
            leaves = score >= self.threshold
            leaving = np.count_nonzero(leaves)
            if leaving:
                if self.answers_itself:
                    exit_answers = criterion.answer(memory, exit_logits)
                if leaving == len(exit_logits):
                    answers[active], exit_index[active] = exit_answers, current
                    break
                if isinstance(active, slice):
                    active = np.arange(rows)
                answers[active[leaves]], exit_index[active[leaves]] = exit_answers[leaves], current
                stay = np.flatnonzero(~leaves)
                memory = {name: value[stay] for name, value in memory.items()}
                state = state.select(torch.from_numpy(stay).to(logits.device, non_blocking=True))
                active = active[stay]
            current += 1
        return Answers(torch.from_numpy(answers), torch.from_numpy(exit_index))


def _on_host(values: Tensor) -> np.ndarray:
    """Values as a float32 array for the criterion; on the CPU a view.

    Raises:
        InvalidLogitsError: a value is NaN.
    """
    if values.dtype != torch.float32 or not values.is_cpu:
        values = values.float().cpu()
    array: np.ndarray = values.numpy()
    # For a row or two Python is faster: NumPy's two calls take 0.04 ms with cold caches.
    has_nan = any(x != x for x in array.ravel().tolist()) if array.size <= 16 else np.isnan(array).any()
    if has_nan:
        raise InvalidLogitsError("live: the model answered NaN; lower its learning rate and train it again")
    return array
