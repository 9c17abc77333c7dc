"""The live engine: layer by layer, dropping rows as they leave. It calls the criteria that replay calls."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InvalidLogitsError, UnsupportedError
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.criteria.base import State, answers_itself
from pipeline.evaluation.point import criterion_of
from pipeline.models.multi_exit import MultiExit
from pipeline.results import OperatingPoint


@dataclass(frozen=True)
class Answers:
    """What each row was answered, on the CPU: logits (n, outputs) float32 of the exit that answered it, and that
    exit's 0-based index (n,) int64."""

    logits: Tensor
    exit_index: Tensor


class LiveEngine:
    """Early-exit inference with one criterion at one threshold; every row leaves on its own account.

    Batch 1 pays for the layer, the head and the criterion's step, nothing else. In a batch the rows that left are
    compacted away, so that later layers run on what is left.

    Decisions are made in NumPy on every device, by the arithmetic that replay uses. On a GPU that costs one transfer
    of (n, outputs) numbers per exit, the only point where the host waits; rows that stay go up as an index, which
    waits for nothing (docs/live-engine.md).

    Args:
        model: in eval mode; exits without which the criterion cannot act make every row run to the end.
        criterion: None runs all layers and answers with the last exit only (no early heads are evaluated).
        threshold: a row leaves at the first exit whose score reaches it.

    Raises:
        UnsupportedError: the criterion has no meaning for a regression model, is a bound that looks at labels or
            dice, or reads a channel that the model does not have.
    """

    def __init__(self, model: MultiExit, criterion: Criterion | None, threshold: float = np.inf) -> None:
        if criterion is not None and model.outputs == 1 and not criterion.regression:
            raise UnsupportedError(f"criterion {criterion.name!r} has no meaning for regression; use patience")
        if criterion is not None and not criterion.causal:
            raise UnsupportedError(f"criterion {criterion.name!r} is a bound for replay; no model can run it live")
        self.reads = criterion.reads if criterion is not None else "logits"
        if criterion is not None and self.reads != "logits" and self.reads not in model.channels:
            raise UnsupportedError(
                f"criterion {criterion.name!r} reads channel {self.reads!r}, which the model lacks; "
                f"use a model of method {criterion.recorded_by!r}"
            )
        self.answers_itself = criterion is not None and answers_itself(criterion)
        self.model = model
        self.criterion = criterion
        self.threshold = threshold

    @classmethod
    def at(cls, model: MultiExit, point: OperatingPoint) -> "LiveEngine":
        """The engine of a model at a stored operating point. Raises as the constructor and `criterion_of` do."""
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
        done = 0
        state = backbone.embed(batch)
        rows = len(next(iter(batch.values())))
        answered = np.empty((rows, model.outputs), dtype=np.float32)
        exit_index = np.empty(rows, dtype=np.int64)
        active: slice | np.ndarray = slice(None)  # original positions of the rows still running
        memory: State | None = None
        for index in range(backbone.layers):
            state = backbone.layer(index, state)
            if index + 1 != exits[done]:
                continue
            if criterion is None and done < last:
                done += 1
                continue
            logits, values = model.read(done, state, self.reads)
            given = seen = _on_host(logits)
            if criterion is None or done == last:
                answered[active], exit_index[active] = given, done
                break
            read = seen if values is logits else _on_host(values)
            if memory is None:
                memory = criterion.start(len(seen), read)
            memory, score = criterion.step(memory, read)
            gone = score >= self.threshold
            leaving = np.count_nonzero(gone)
            if leaving:
                if self.answers_itself:
                    given = criterion.answer(memory, seen)
                if leaving == len(seen):
                    answered[active], exit_index[active] = given, done
                    break
                if isinstance(active, slice):
                    active = np.arange(rows)
                answered[active[gone]], exit_index[active[gone]] = given[gone], done
                stay = np.flatnonzero(~gone)
                memory = {name: value[stay] for name, value in memory.items()}
                state = state.select(torch.from_numpy(stay).to(logits.device, non_blocking=True))
                active = active[stay]
            done += 1
        return Answers(torch.from_numpy(answered), torch.from_numpy(exit_index))


def _on_host(values: Tensor) -> np.ndarray:
    """Float32 values where the criterion computes; on the CPU a view.

    Raises:
        InvalidLogitsError: one is NaN.
    """
    if values.dtype != torch.float32 or not values.is_cpu:
        values = values.float().cpu()
    seen: np.ndarray = values.numpy()
    # A row or two are searched sooner in Python: NumPy's two calls are 0.04 ms after a layer swept the caches.
    found = any(x != x for x in seen.ravel().tolist()) if seen.size <= 16 else np.isnan(seen).any()
    if found:
        raise InvalidLogitsError("live: the model answered NaN; lower its learning rate and train it again")
    return seen
