"""The live engine: it runs layer by layer, drops rows as they leave, and uses the criteria of replay."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.leaving import ExitAnswers, Leaving, Rule
from pipeline.evaluation.point import criterion_of
from pipeline.models.multi_exit import MultiExit
from pipeline.models.precision import full_float32
from pipeline.results import OperatingPoint


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
        UnsupportedError, ArtifactError: as `Rule`.
    """

    def __init__(self, model: MultiExit, criterion: Criterion | None, threshold: float = np.inf) -> None:
        self.rule = Rule(criterion, threshold, len(model.exits), model.outputs, tuple(model.channels))
        full_float32()  # as the traces that the threshold comes from
        self.model = model

    @classmethod
    def at(cls, model: MultiExit, point: OperatingPoint) -> "LiveEngine":
        """The engine of a model at a stored operating point; raises as the constructor and `criterion_of` do."""
        return cls(model, criterion_of(point), point.limit)

    @torch.inference_mode()
    def __call__(self, batch: Mapping[str, Tensor]) -> Leaving:
        """Answer a batch.

        Raises:
            InvalidLogitsError: an exit answered NaN.
        """
        backbone, exits = self.model.backbone, self.model.exits
        leaving = Leaving(self.rule, len(next(iter(batch.values()))))
        state = backbone.embed(batch)
        current = 0
        for index in range(backbone.layers):
            state = backbone.layer(index, state)
            if index + 1 != exits[current]:
                continue
            stay = leaving.after_layer(current, state, self._ask)
            if stay is not None:
                if not len(stay):
                    break
                state = state.select(torch.from_numpy(stay).to(state[0].device, non_blocking=True))
            current += 1
        return leaving

    def _ask(self, exits: Sequence[int], states: Sequence[Any]) -> list[ExitAnswers]:
        read = self.model.read(exits, states, self.rule.reads)
        logits = [_on_host(one) for one, _ in read]
        if self.rule.reads == "logits":
            return [(one, one) for one in logits]
        return [(one, _on_host(values)) for one, (_, values) in zip(logits, read, strict=True)]

    @torch.inference_mode()
    def record(self, batch: Mapping[str, Tensor]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits of all exits, (n, exits, outputs), and the channels, (n, exits) each, float32, in one pass; who would
        leave where is told by `leave_recorded`."""
        logits, channels = self.model.record(batch, self.model.channels)
        return _on_host(logits), {name: _on_host(values) for name, values in channels.items()}


def _on_host(values: Tensor) -> np.ndarray:
    """Values as a float32 array for the criterion; on the CPU a view."""
    if values.dtype != torch.float32 or not values.is_cpu:
        values = values.float().cpu()
    array: np.ndarray = values.numpy()
    return array
