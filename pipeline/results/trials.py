"""What finetune leaves: each trial's result, the table of all trials, and the models selected for a task."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Part, Result


class TrialResult(Result):
    """`runs/trials/<key>/result.json`: the marker of a finished trial, written last."""

    made_by: ClassVar[str] = "finetune"
    best_epoch: int
    """Epoch whose weights were kept, from 1."""
    epochs_run: int
    """Epochs trained."""
    selection: float | None
    """Score that picks epochs and grid points, on selection rows; None where it is not defined."""
    train_seconds: float
    """Seconds in optimiser steps, all epochs."""
    train_seconds_to_best: float
    """The same up to the kept epoch."""
    micro_batch: int | None
    """Rows that went through the model at a time; None: whole batches."""
    metrics: dict[str, float | None]
    """The kept epoch's metrics: loss, score of each exit."""
    parameters: int
    """Parameters of the kept model."""
    early_exit_parameters: int
    """Of these, what leaving early needs: exits before the last, channels."""
    layers: int
    """Layers of the plain model that speed-ups are measured against."""
    exits: tuple[int, ...]
    """Layers with an exit, from 1."""
    weights_sha256: str
    """Hash of the kept model's file; a file with another hash counts as not run."""
    code: str = ""
    """Hash of the code that trained it."""
    versions: dict[str, str] = {}
    """Libraries that trained it, and the commit."""


class TrialRecord(Part):
    """A trial of the plan."""

    key: str
    """Hash of all that its result hangs on; its folder's name."""
    group: str
    """task/backbone/method."""
    settings: dict[str, JsonValue]
    """All that its result hangs on."""
    train_seconds: float | None
    """Seconds in optimiser steps; None for a trial that failed."""
    train_seconds_to_best: float | None
    """The same up to the kept epoch."""
    epochs_run: int | None
    """Epochs trained."""
    best_epoch: int | None
    """Epoch whose weights were kept."""
    mlflow_run_id: str | None
    """Its tracked run; None where the store lost it."""
    other_code: bool = False
    """Whether code trained it that is not today's, and was declared to do the same."""
    versions: dict[str, str] = {}
    """Libraries that trained it."""


class Trials(Result):
    """`outputs/finetune/trials.json`: every trial of today's plan. Its seconds differ from run to run."""

    made_by: ClassVar[str] = "finetune"
    trials: tuple[TrialRecord, ...]
    """The grids first, then further seeds."""


class GridPoint(Part):
    """One point of a grid."""

    batch_size: int
    """Rows per optimiser step."""
    learning_rate: float
    """Highest learning rate of the schedule."""
    selection: float | None
    """Score on selection rows; None where its trial failed."""
    key: str
    """Its trial."""


class SelectedTrial(Part):
    """The trial of one seed at the chosen grid point."""

    seed: int
    """Its seed."""
    key: str
    """Its key."""
    weights_sha256: str
    """Hash of its model's file."""


class FailedTrial(Part):
    """A trial that failed for good."""

    seed: int
    """Its seed."""
    key: str
    """Its key."""


class ModelGroup(Part):
    """One (task, backbone, method): what its grid gave, and the models that stand for it."""

    group: str
    """task/backbone/method."""
    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    multi_exit: bool
    """Whether there are early exits, so that criteria apply."""
    batch_size: int
    """Of the chosen point."""
    learning_rate: float
    """Of the chosen point."""
    grid: tuple[GridPoint, ...]
    """All points."""
    trials: tuple[SelectedTrial, ...]
    """The chosen point's trial of each seed."""
    failed: tuple[FailedTrial, ...]
    """Trials of the group that failed."""
    layers: int
    """Layers of the plain model that speed-ups are measured against."""
    exits: tuple[int, ...]
    """Layers with an exit, from 1."""
    parameters: int
    """Parameters of a model."""
    early_exit_parameters: int
    """Of these, what leaving early needs."""


class Selected(Result):
    """`outputs/selected/<task>.json`: the models that stand for a task; they lie in `outputs/models/<task>`."""

    made_by: ClassVar[str] = "finetune"
    task: str
    """The task's name."""
    modality: Literal["text", "image"]
    """Of the task."""
    protocol: Literal["holdout", "paper"]
    """What picked epochs and grid points."""
    groups: tuple[ModelGroup, ...]
    """In the order of params.yaml: backbones, then methods."""
