"""Results of finetune: each trial's result, the table of all trials, and the selected models of a task."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.errors import shown
from pipeline.results.base import (
    Amount,
    Count,
    Name,
    Natural,
    Part,
    Positive,
    Result,
    Seed,
    Text,
    Value,
    refuse_descending,
    refuse_repeats,
)


class TrialResult(Result):
    """`runs/trials/<key>/result.json`: the marker of a finished trial, written last."""

    made_by: ClassVar[str] = "finetune"
    best_epoch: Natural
    """Epoch whose weights were kept, from 1."""
    epochs_run: Natural
    """Number of trained epochs."""
    selection: float | None
    """Score on selection rows that picks epochs and grid points; None where it is undefined."""
    train_seconds: Amount
    """Seconds of optimiser steps, all epochs."""
    train_seconds_to_best: Amount
    """The same up to the kept epoch."""
    micro_batch: Natural | None
    """Rows per pass through the model; None: whole batches."""
    metrics: dict[str, float | None]
    """Metrics of the kept epoch: loss, score of each exit."""
    parameters: Count
    """Number of parameters of the kept model."""
    early_exit_parameters: Count
    """Number of parameters of early exits and channels."""
    layers: Natural
    """Layers of the plain model, to which speed-ups are relative."""
    exits: tuple[Natural, ...]
    """Layers with an exit, from 1."""
    weights_sha256: str
    """Hash of the kept model's file."""
    code: str = ""
    """Hash of the code that trained it."""
    versions: dict[str, str] = {}
    """Versions of the libraries that trained it, the commit, the processor, threads and GPU."""

    def check(self) -> None:
        if self.best_epoch > self.epochs_run:
            raise ValueError(f"best_epoch {self.best_epoch} of {self.epochs_run} epochs")
        refuse_descending("exits", self.exits)
        _refuse_sizes(self)


class Epoch(Part):
    """One epoch of a trial."""

    epoch: Natural
    """Which, from 1."""
    train_loss: Value
    """Mean loss of its steps; what it sums over is the method's."""
    selection: Value | None
    """Score on selection rows after it; None where it is undefined."""


class TrialRecord(Part):
    """A trial of the plan."""

    key: Name
    """Hash of its settings; the name of its folder."""
    group: Text
    """task/backbone/method."""
    settings: dict[str, JsonValue]
    """All settings that its result depends on."""
    train_seconds: Amount | None
    """Seconds of optimiser steps; None for a failed trial."""
    train_seconds_to_best: Amount | None
    """The same up to the kept epoch."""
    epochs_run: Natural | None
    """Number of trained epochs."""
    best_epoch: Natural | None
    """Epoch whose weights were kept."""
    stopped_after: Natural | None = None
    """Epoch after which its search stopped it; it has no result then, and did not fail."""
    mlflow_run_id: Text | None
    """Its run in MLflow; None where the store has none."""
    other_code: bool = False
    """Whether other code than today's trained it, which was declared to train alike."""
    versions: dict[str, str] = {}
    """Versions of the libraries that trained it, and the hardware, as in `TrialResult`."""
    history: tuple[Epoch, ...] = ()
    """Every epoch that it trained, in order, as far as they are on disk."""

    def check(self) -> None:
        result = (self.train_seconds, self.train_seconds_to_best, self.epochs_run, self.best_epoch)
        if len({part is None for part in result}) > 1:
            raise ValueError("some of train_seconds, train_seconds_to_best, epochs_run and best_epoch are missing")
        if self.stopped_after is not None and self.epochs_run is not None:
            raise ValueError(f"stopped_after {self.stopped_after} of a trial that ran to its end")
        if self.history:
            refuse_descending("history", tuple(epoch.epoch for epoch in self.history))


class Trials(Result):
    """`outputs/finetune/trials.json`: every trial of the plan. Seconds differ from run to run."""

    schema_version: ClassVar[int] = 4
    """Version 3 had no epochs of trials."""
    made_by: ClassVar[str] = "finetune"
    trials: tuple[TrialRecord, ...]
    """Trials of the grids, then of further seeds."""

    def check(self) -> None:
        refuse_repeats("trials", (trial.key for trial in self.trials))


class GridPoint(Part):
    """One point that a search tried."""

    batch_size: Natural
    """Rows per optimiser step."""
    learning_rate: Positive
    """Highest learning rate of the schedule."""
    selection: float | None
    """Score on selection rows, of a stopped trial until then; None where its trial failed."""
    stopped_after: Natural | None = None
    """Epoch after which the search stopped its trial, which cannot be chosen then; None: it ran to its end."""
    key: Name
    """Its trial."""


class Searched(Part):
    """How a grid was searched, and what that took."""

    method: Literal["grid", "asha", "bayes"] = "grid"
    """`grid.search`: every point to its end, successive halving, or suggested points."""
    stopped: Count = 0
    """Number of trials that were stopped."""
    epochs: Count = 0
    """Number of epochs that its trials trained, those of failed ones apart."""
    epochs_saved: Count = 0
    """Number of epochs, at most, that stopped trials would have trained to their end."""


class SelectedTrial(Part):
    """The trial of one seed at the chosen grid point."""

    seed: Seed
    """Its seed."""
    key: Name
    """Its key."""
    weights_sha256: str
    """Hash of its model's file."""


class FailedTrial(Part):
    """A trial that failed for good, or could not run since the trial that it starts from failed."""

    seed: Seed
    """Its seed."""
    key: Name
    """Its key."""
    reason: str
    """Why, in one line."""


class ModelGroup(Part):
    """One (task, backbone, method): the scores of its grid, and its selected models."""

    group: Text
    """task/backbone/method."""
    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    regime: dict[Text, Text] = {}
    """Settings of its training that are not those of the method with its name: recipe, weights, gradients, heads."""
    multi_exit: bool
    """Whether there are early exits, so that criteria apply."""
    batch_size: Natural
    """Batch size of the chosen point."""
    learning_rate: Positive
    """Learning rate of the chosen point."""
    grid: tuple[GridPoint, ...]
    """All points that the search tried."""
    search: Searched = Searched()
    """How they were searched."""
    trials: tuple[SelectedTrial, ...]
    """The chosen point's trial of each seed."""
    failed: tuple[FailedTrial, ...]
    """Trials of the group that failed or could not run."""
    layers: Natural
    """Layers of the plain model, to which speed-ups are relative."""
    exits: tuple[Natural, ...]
    """Layers with an exit, from 1."""
    parameters: Count
    """Number of parameters of a model."""
    early_exit_parameters: Count
    """Number of parameters of early exits and channels."""

    @property
    def point(self) -> GridPoint:
        """The chosen point."""
        at = (self.batch_size, self.learning_rate)
        for point in self.grid:
            if (point.batch_size, point.learning_rate) == at:
                return point
        raise ValueError(f"grid: the chosen point {at} is not in it")

    def check(self) -> None:
        if not self.trials:
            raise ValueError("trials: there is none")
        refuse_repeats("trials", (trial.seed for trial in self.trials))
        refuse_repeats("trials and failed", [t.key for t in self.trials] + [t.key for t in self.failed])
        refuse_repeats("grid", (point.key for point in self.grid))
        if self.point.stopped_after is not None:
            raise ValueError("grid: the chosen point was stopped")
        stopped = sum(point.stopped_after is not None for point in self.grid)
        if stopped != self.search.stopped:
            raise ValueError(f"search.stopped: {self.search.stopped}, and {stopped} points of the grid are")
        refuse_descending("exits", self.exits)
        _refuse_sizes(self)


class Selected(Result):
    """`outputs/selected/<task>.json`: the selected models of a task; their files are in `outputs/models/<task>`."""

    schema_version: ClassVar[int] = 5
    """Version 4 had no regimes, version 3 no searches but the grid."""
    made_by: ClassVar[str] = "finetune"
    task: Name
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the task's rows."""
    protocol: Literal["holdout", "paper"]
    """Source of the rows that picked epochs and grid points."""
    groups: tuple[ModelGroup, ...]
    """In the order of params.yaml: backbones, then methods."""

    def check(self) -> None:
        refuse_repeats("groups", ((group.backbone, group.method) for group in self.groups))
        for group in self.groups:
            if group.group != f"{self.task}/{group.backbone}/{group.method}":
                raise ValueError(f"groups: {shown(group.group)} is not its task, backbone and method")


def _refuse_sizes(model: TrialResult | ModelGroup) -> None:
    if model.exits[-1] > model.layers:
        raise ValueError(f"exits: {model.exits[-1]} is beyond the {model.layers} layers")
    if model.early_exit_parameters > model.parameters:
        raise ValueError(f"early_exit_parameters {model.early_exit_parameters} exceed parameters {model.parameters}")
