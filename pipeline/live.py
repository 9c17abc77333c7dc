"""The live engine: layer by layer, dropping rows as they leave. It calls the criteria that replay calls."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.criteria import Criterion
from pipeline.criteria.base import Array, answers_itself
from pipeline.errors import InvalidLogitsError, UnsupportedError
from pipeline.multi_exit import MultiExit


@dataclass(frozen=True)
class Answers:
    """logits (n, outputs) of the exit that answered each row, and that exit's 0-based index (n,)."""

    logits: Tensor
    exit_index: Tensor


class LiveEngine:
    """Early-exit inference with one criterion at one threshold; every row leaves on its own account.

    Batch 1 pays for the layer, the head and the criterion's step, nothing else. In a batch the rows that left are
    compacted away, so that later layers run on what is left.

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

    @torch.inference_mode()
    def __call__(self, batch: Mapping[str, Tensor]) -> Answers:
        """Answer a batch.

        Raises:
            InvalidLogitsError: an exit answered NaN.
        """
        model = self.model
        state = model.backbone.embed(batch)
        last = len(model.exits) - 1
        done = 0
        answers: Answers | None = None
        active: Tensor | None = None  # original positions of the rows still running; None: all of them
        memory = None
        for index in range(model.backbone.layers):
            state = model.backbone.layer(index, state)
            if index + 1 != model.exits[done]:
                continue
            if self.criterion is None and done < last:
                done += 1
                continue
            logits, values = model.read(done, state, self.reads)
            seen = _as_decided(logits)
            _refuse_nan(seen)
            if self.answers_itself:
                logits = logits.float()
            if done == last:
                leave = None
            else:
                assert self.criterion is not None
                read = seen
                if self.reads != "logits":
                    read = _as_decided(values)
                    _refuse_nan(read)
                if memory is None:
                    memory = self.criterion.start(len(logits), read)
                memory, score = self.criterion.step(memory, read)
                gone = score >= self.threshold
                if self.answers_itself:
                    logits = torch.as_tensor(self.criterion.answer(memory, seen), dtype=torch.float32)
                if not gone.any():
                    done += 1
                    continue
                leave = None if gone.all() else gone
            answers, active = _record(answers, active, logits, done, leave)
            if leave is None:
                break
            stay = ~leave
            assert memory is not None
            memory = {name: value[stay] for name, value in memory.items()}
            keep = torch.as_tensor(stay, device=logits.device).nonzero()[:, 0]
            state = state.select(keep)
            active = active[keep]
            done += 1
        assert answers is not None
        return answers


def _record(
    answers: Answers | None, active: Tensor | None, logits: Tensor, exit_index: int, leave: Array | None
) -> tuple[Answers, Tensor]:
    """Write the answers of the rows that leave (all of them if `leave` is None) at their original positions."""
    if active is None:
        active = torch.arange(len(logits), device=logits.device)
        if leave is None:
            return Answers(logits, torch.full_like(active, exit_index)), active
    if answers is None:
        answers = Answers(torch.empty_like(logits), torch.empty_like(active))
    if leave is None:
        answers.logits[active], answers.exit_index[active] = logits, exit_index
        return answers, active
    gone = torch.as_tensor(leave, device=logits.device)
    answers.logits[active[gone]], answers.exit_index[active[gone]] = logits[gone], exit_index
    return answers, active


def _as_decided(logits: Tensor) -> Array:
    """Float32 logits where the criterion computes: NumPy's view of them on the CPU, so that live and replay run the
    same arithmetic; the tensor itself on a GPU."""
    logits = logits.float()
    return logits.numpy() if logits.device.type == "cpu" else logits


def _refuse_nan(logits: Array) -> None:
    if (logits != logits).any():
        raise InvalidLogitsError("live: the model answered NaN; lower its learning rate and train it again")
