"""The training loop for texts and images: epochs, early stopping, best checkpoint, resuming."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InvalidLogitsError, ParamsError
from pipeline.models.multi_exit import MultiExit, save_checkpoint
from pipeline.storage import file_hash, write_text
from pipeline.training.plan import WEIGHTS
from pipeline.training.resume import State, load_state, save_state

Batch = tuple[Mapping[str, Tensor], Tensor]
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Fit:
    """One training run.

    Attributes:
        model: the model to train, which is saved for resuming.
        objective: model, inputs, labels (n,) and the share of training done, 0..1, to a scalar, a mean over rows.
        batches: epoch to its batches (inputs, labels on the device); a pure function of the epoch, so that a
            resumed run sees the same batches as an uninterrupted one.
        evaluate: model to the metrics of an epoch, with "selection", the score that picks the epoch (higher is better).
        schedule: share of training done, 0..1, to a factor on the learning rate; see `factor_at`.
        autocast: type of matrix products in training; None: float32.
        training_mode: puts the model into training mode; frozen parts stay in eval mode.
        served: the model that is evaluated and stored, where it is a part of `model`; it shares the weights.
        micro_batch: rows per pass through the model; gradients are accumulated over the batch. None: the whole batch,
            halved whenever the GPU runs out of memory.
        compiler: backend of torch.compile for the model's forward pass, for batches of any shape; None: not compiled.
    """

    model: MultiExit
    objective: Callable[[MultiExit, Mapping[str, Tensor], Tensor, float], Tensor]
    batches: Callable[[int], Iterable[Batch]]
    steps_per_epoch: int
    evaluate: Callable[[MultiExit], dict[str, float]]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[float], float]
    epochs: int
    stop_after: int
    seed: int
    clip_norm: float | None = None
    autocast: torch.dtype | None = None
    training_mode: Callable[[MultiExit], object] = MultiExit.train
    served: MultiExit | None = None
    micro_batch: int | None = None
    compiler: str | None = None


def run_fit(fit: Fit, directory: Path, report: Report) -> dict[str, Any]:
    """Train, and write the best epoch's checkpoint, metrics.jsonl and its state to `directory`.

    A killed run reports its complete epochs again and resumes after the last: each epoch is seeded from (seed, epoch).

    Returns:
        best_epoch, epochs_run, selection (the best score), train_seconds, micro_batch (None where no batch
        was split), and the best epoch's metrics, None where one is undefined.

    Raises:
        InvalidLogitsError: the loss is not finite, or `evaluate` says that the answers are not.
    """
    served = fit.served or fit.model
    history = _resume(fit, served, directory)
    for row in history:
        report(row)  # the driver may have been killed before it heard of the last
    steps = Steps(fit)
    for epoch in range(len(history) + 1, fit.epochs + 1):
        if _stalled(history, fit.stop_after):
            break
        torch.manual_seed(fit.seed * 100_003 + epoch)
        started = time.perf_counter()
        loss = steps.epoch(epoch)
        seconds = time.perf_counter() - started
        if not math.isfinite(loss):
            raise InvalidLogitsError(
                f"epoch {epoch}: the training loss is {loss}, the model diverged; lower the learning rate"
            )
        fit.model.eval()
        metrics = fit.evaluate(served.eval())
        row = {"epoch": epoch, "train_loss": loss, "train_seconds": seconds, **metrics}
        history.append(row)
        _save_progress(fit, directory, history)
        _keep_best(served, directory, history)
        report(row)
    best = _best(history)
    assert best is not None
    return {
        "best_epoch": int(best["epoch"]),
        "epochs_run": len(history),
        "selection": None if math.isnan(best["selection"]) else best["selection"],
        "train_seconds": sum(row["train_seconds"] for row in history),
        "train_seconds_to_best": sum(row["train_seconds"] for row in history[: int(best["epoch"])]),
        "micro_batch": steps.rows,
        "metrics": {name: None if math.isnan(value) else value for name, value in best.items()},
    }


class Steps:
    """The optimiser's steps.

    Attributes:
        rows: rows per pass through the model; None: a whole batch.
    """

    def __init__(self, fit: Fit) -> None:
        self.fit, self.rows = fit, fit.micro_batch
        self.parameters = [p for group in fit.optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device.type
        if fit.compiler is not None:
            _check_compiler(fit.compiler, self.device)
            fit.model.compile(dynamic=True, backend=fit.compiler)

    def epoch(self, epoch: int) -> float:
        """Train one epoch; return the mean loss over its batches."""
        fit = self.fit
        fit.training_mode(fit.model)
        groups = fit.optimizer.param_groups
        base = [group.setdefault("initial_lr", group["lr"]) for group in groups]
        total = fit.steps_per_epoch * fit.epochs
        losses: list[Tensor] = []
        for step, (inputs, labels) in enumerate(fit.batches(epoch), fit.steps_per_epoch * (epoch - 1) + 1):
            factor = factor_at(fit.schedule, step, total)
            for group, rate in zip(groups, base, strict=True):
                group["lr"] = rate * factor
            losses.append(self._gradients(inputs, labels, step / total))
            if fit.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, fit.clip_norm)
            fit.optimizer.step()
        return float(torch.stack(losses).mean())

    def _gradients(self, inputs: Mapping[str, Tensor], labels: Tensor, done: float) -> Tensor:
        """Compute the batch's gradients and loss; use fewer rows per pass when memory runs out."""
        while True:
            self.fit.optimizer.zero_grad(set_to_none=True)
            try:
                return self._accumulated(inputs, labels, done)
            except torch.OutOfMemoryError:
                if self.rows == 1:
                    raise
                self.rows = -(-min(self.rows or len(labels), len(labels)) // 2)
            torch.cuda.empty_cache()

    def _accumulated(self, inputs: Mapping[str, Tensor], labels: Tensor, done: float) -> Tensor:
        fit, rows = self.fit, len(labels)
        at_once = min(self.rows or rows, rows)
        losses = []
        for start in range(0, rows, at_once):
            part = slice(start, start + at_once)
            some = inputs if at_once == rows else {name: value[part] for name, value in inputs.items()}
            with torch.autocast(self.device, fit.autocast, enabled=fit.autocast is not None):
                loss = fit.objective(fit.model, some, labels[part], done)
            loss = loss * (len(labels[part]) / rows)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def factor_at(schedule: Callable[[float], float], step: int, steps: int) -> float:
    """Factor on the learning rate of a step, counted from 1.

    Training ends with the step at share 1, where a linear schedule is 0. The only step of a run would be that one and
    change nothing, so it goes at the full rate.

    >>> [factor_at(lambda done: 1 - done, step, 2) for step in (1, 2)], factor_at(lambda done: 1 - done, 1, 1)
    ([0.5, 0.0], 1.0)
    """
    return schedule(step / steps) if steps > 1 else 1.0


def _check_compiler(backend: str, device: str) -> None:
    """Raise ParamsError where inductor would fail for lack of a C++ compiler, minutes later."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if backend == "inductor" and device == "cpu" and not any(map(shutil.which, names)):
        raise ParamsError(
            f"training.compile: true needs a C++ compiler ({' or '.join(names)}); install one, or set false"
        )


def _best(history: list[dict[str, float]]) -> dict[str, float] | None:
    """The first epoch with the highest selection score; one that is NaN only where all are, and then the first."""
    scored = [row for row in history if not math.isnan(row["selection"])] or history
    return max(scored, key=lambda row: row["selection"], default=None)


def _stalled(history: list[dict[str, float]], stop_after: int) -> bool:
    best = _best(history)
    return best is not None and len(history) - int(best["epoch"]) >= stop_after


def _keep_best(served: MultiExit, directory: Path, history: list[dict[str, float]]) -> None:
    """Store the model where the last epoch is the best."""
    if _best(history) is history[-1]:
        save_checkpoint(served, directory)


def _save_progress(fit: Fit, directory: Path, history: list[dict[str, float]]) -> None:
    """Write the state after an epoch with its history, so that both agree."""
    best = None if _best(history) is history[-1] else file_hash(directory / WEIGHTS)
    save_state(directory, State(fit.model.state_dict(), fit.optimizer.state_dict(), history, best))
    _write_history(directory, history)


def _write_history(directory: Path, history: list[dict[str, float]]) -> None:
    """Write metrics.jsonl, from which the trial's tracked run gets what its driver did not hear."""
    write_text(directory / "metrics.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in history))


def _resume(fit: Fit, served: MultiExit, directory: Path) -> list[dict[str, float]]:
    """Load the state of an interrupted run; training starts over where it is damaged or of another model."""
    directory.mkdir(parents=True, exist_ok=True)
    state = load_state(directory)
    if state is None or _shapes(state.model) != _shapes(fit.model.state_dict()):
        return []
    fit.model.load_state_dict(state.model)
    fit.optimizer.load_state_dict(state.optimizer)
    for parameter, entries in fit.optimizer.state.items():
        for name, value in entries.items():  # strides of the parameter, which decide how kernels round
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(value)
    _keep_best(served, directory, state.history)  # the process may have been killed between the files
    _write_history(directory, state.history)
    return state.history


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}
