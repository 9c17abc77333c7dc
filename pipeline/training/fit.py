"""The training loop: epochs, early stopping, the best checkpoint kept, resume after a kill. Text and images alike."""

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

from pipeline.errors import ParamsError
from pipeline.models.multi_exit import MultiExit, save_checkpoint

Batch = tuple[Mapping[str, Tensor], Tensor]
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Fit:
    """One training run.

    Attributes:
        model: what is trained, and what a checkpoint of progress holds.
        objective: model, inputs, labels (n,) and the share of training done, 0..1, to a scalar, a mean over rows.
        batches: epoch to its batches (inputs, labels on the device); a pure function of the epoch, so that a
            resumed run sees what an uninterrupted one would.
        evaluate: per-epoch metrics; must hold "selection", the score that picks the epoch, higher is better.
        schedule: share of training done, 0..1, to a factor on the learning rate.
        training_mode: puts the model into training mode; a recipe keeps its frozen parts in eval mode.
        served: what is judged and kept, if it is a part of `model`; shares its weights.
        micro_batch: rows that go through the model at a time; their gradients add up to the batch's. None: all, and
            half as many whenever the GPU's memory does not hold them.
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
    autocast: bool = False
    training_mode: Callable[[MultiExit], object] = MultiExit.train
    served: MultiExit | None = None
    micro_batch: int | None = None
    compiler: str | None = None


def run_fit(fit: Fit, directory: Path, report: Report) -> dict[str, Any]:
    """Train; leave the best epoch's checkpoint, metrics.jsonl and resume.pt in `directory`.

    A killed run goes on after its last whole epoch: randomness is drawn anew each epoch from (seed, epoch).

    Returns:
        best_epoch, epochs_run, selection (the best score), train_seconds, micro_batch (None where no batch was
        parted), and the best epoch's metrics, None where one is not defined.
    """
    history = _resume(fit, directory)
    served = fit.served or fit.model
    steps = Steps(fit)
    for epoch in range(len(history) + 1, fit.epochs + 1):
        if _stalled(history, fit.stop_after):
            break
        torch.manual_seed(fit.seed * 100_003 + epoch)
        started = time.perf_counter()
        loss = steps.epoch(epoch)
        seconds = time.perf_counter() - started
        if not math.isfinite(loss):
            raise FloatingPointError(f"training loss is {loss} in epoch {epoch}; lower the learning rate")
        fit.model.eval()
        metrics = fit.evaluate(served.eval())
        row = {"epoch": epoch, "train_loss": loss, "train_seconds": seconds, **metrics}
        if _best(history) is None or metrics["selection"] > _best(history)["selection"]:  # type: ignore[index]
            save_checkpoint(served, directory)
        history.append(row)
        _save_progress(fit, directory, history)
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
        rows: that go through the model at a time; None: a whole batch.
    """

    def __init__(self, fit: Fit) -> None:
        self.fit, self.rows = fit, fit.micro_batch
        self.parameters = [p for group in fit.optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device.type
        if fit.compiler is not None:
            _check_compiler(fit.compiler, self.device)
            fit.model.compile(dynamic=True, backend=fit.compiler)

    def epoch(self, epoch: int) -> float:
        """Train one epoch; the mean loss over its batches."""
        fit = self.fit
        fit.training_mode(fit.model)
        groups = fit.optimizer.param_groups
        base = [group.setdefault("initial_lr", group["lr"]) for group in groups]
        total = fit.steps_per_epoch * fit.epochs
        losses: list[Tensor] = []
        for step, (inputs, labels) in enumerate(fit.batches(epoch), fit.steps_per_epoch * (epoch - 1) + 1):
            factor = fit.schedule(step / total)
            for group, rate in zip(groups, base, strict=True):
                group["lr"] = rate * factor
            losses.append(self._gradients(inputs, labels, step / total))
            if fit.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.parameters, fit.clip_norm)
            fit.optimizer.step()
        return float(torch.stack(losses).mean())

    def _gradients(self, inputs: Mapping[str, Tensor], labels: Tensor, done: float) -> Tensor:
        """Leave the batch's gradient in the parameters; its loss. Takes fewer rows at a time when memory runs out."""
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
            with torch.autocast(self.device, torch.bfloat16, enabled=fit.autocast):
                loss = fit.objective(fit.model, some, labels[part], done)
            loss = loss * (len(labels[part]) / rows)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def _check_compiler(backend: str, device: str) -> None:
    """Raise a ParamsError where inductor would look for a C++ compiler in vain, minutes later."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if backend == "inductor" and device == "cpu" and not any(map(shutil.which, names)):
        raise ParamsError(
            f"training.compile: true needs a C++ compiler ({' or '.join(names)}); install one, or set false"
        )


def _best(history: list[dict[str, float]]) -> dict[str, float] | None:
    """The first epoch with the highest selection score; NaN never wins."""
    scored = [row for row in history if not math.isnan(row["selection"])] or history
    return max(scored, key=lambda row: row["selection"], default=None)


def _stalled(history: list[dict[str, float]], stop_after: int) -> bool:
    best = _best(history)
    return best is not None and len(history) - int(best["epoch"]) >= stop_after


def _save_progress(fit: Fit, directory: Path, history: list[dict[str, float]]) -> None:
    """State after a whole epoch; history travels inside so that the two cannot disagree."""
    # The history as text: a NumPy number in it would be written as a pickle that no safe loading reads again.
    state = {"model": fit.model.state_dict(), "optimizer": fit.optimizer.state_dict(), "history": json.dumps(history)}
    partial = directory / "resume.pt.partial"
    torch.save(state, partial)
    os.replace(partial, directory / "resume.pt")
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in history)
    (directory / "metrics.jsonl").write_text(lines, encoding="utf-8")


def _resume(fit: Fit, directory: Path) -> list[dict[str, float]]:
    """Load the state of an interrupted run; an unreadable one is dropped and training starts over."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "resume.pt"
    if not path.is_file() or not (directory / "model.safetensors").is_file():
        return []
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        history: list[dict[str, float]] = json.loads(state["history"])
    except Exception:  # whatever an interrupted disk left there: starting over is always right
        return []
    fit.model.load_state_dict(state["model"])
    fit.optimizer.load_state_dict(state["optimizer"])
    return history
