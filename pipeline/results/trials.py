"""Results of finetune: each trial's result, the table of all trials, and the selected models of a task."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Part, Result


class TrialResult(Result):
    """`runs/trials/<key>/result.json`: the marker of a finished trial, written last."""

    made_by: ClassVar[str] = "finetune"
    best_epoch: int
    """Epoch whose weights were kept, from 1."""
    epochs_run: int
    """Number of trained epochs."""
    selection: float | None
    """Score on selection rows that picks epochs and grid points; None where it is undefined."""
    train_seconds: float
    """Seconds of optimiser steps, all epochs."""
    train_seconds_to_best: float
    """The same up to the kept epoch."""
    micro_batch: int | None
    """Rows per pass through the model; None: whole batches."""
    metrics: dict[str, float | None]
    """Metrics of the kept epoch: loss, score of each exit."""
    parameters: int
    """Number of parameters of the kept model."""
    early_exit_parameters: int
    """Number of parameters of early exits and channels."""
    layers: int
    """Layers of the plain model, to which speed-ups are relative."""
    exits: tuple[int, ...]
    """Layers with an exit, from 1."""
    weights_sha256: str
    """Hash of the kept model's file."""
    code: str = ""
    """Hash of the code that trained it."""
    versions: dict[str, str] = {}
    """Versions of the libraries that trained it, and the commit."""


class TrialRecord(Part):
    """A trial of the plan."""

    key: str
    """Hash of its settings; the name of its folder."""
    group: str
    """task/backbone/method."""
    settings: dict[str, JsonValue]
    """All settings that its result depends on."""
    train_seconds: float | None
    """Seconds of optimiser steps; None for a failed trial."""
    train_seconds_to_best: float | None
    """The same up to the kept epoch."""
    epochs_run: int | None
    """Number of trained epochs."""
    best_epoch: int | None
    """Epoch whose weights were kept."""
    mlflow_run_id: str | None
    """Its run in MLflow; None where the store has none."""
    other_code: bool = False
    """Whether other code than today's trained it, which was declared to train alike."""
    versions: dict[str, str] = {}
    """Versions of the libraries that trained it."""


class Trials(Result):
    """`outputs/finetune/trials.json`: every trial of the plan. Seconds differ from run to run."""

    made_by: ClassVar[str] = "finetune"
    trials: tuple[TrialRecord, ...]
    """Trials of the grids, then of further seeds."""


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
    """A trial that failed for good, or could not run since the trial that it starts from failed."""

    seed: int
    """Its seed."""
    key: str
    """Its key."""
    reason: str
    """Why, in one line."""


class ModelGroup(Part):
    """One (task, backbone, method): the scores of its grid, and its selected models."""

    group: str
    """task/backbone/method."""
    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    multi_exit: bool
    """Whether there are early exits, so that criteria apply."""
    batch_size: int
    """Batch size of the chosen point."""
    learning_rate: float
    """Learning rate of the chosen point."""
    grid: tuple[GridPoint, ...]
    """All points of the grid."""
    trials: tuple[SelectedTrial, ...]
    """The chosen point's trial of each seed."""
    failed: tuple[FailedTrial, ...]
    """Trials of the group that failed or could not run."""
    layers: int
    """Layers of the plain model, to which speed-ups are relative."""
    exits: tuple[int, ...]
    """Layers with an exit, from 1."""
    parameters: int
    """Number of parameters of a model."""
    early_exit_parameters: int
    """Number of parameters of early exits and channels."""


class Selected(Result):
    """`outputs/selected/<task>.json`: the selected models of a task; their files are in `outputs/models/<task>`."""

    schema_version: ClassVar[int] = 3
    """Version 2 had no reasons of failures."""
    made_by: ClassVar[str] = "finetune"
    task: str
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the task's rows."""
    protocol: Literal["holdout", "paper"]
    """Source of the rows that picked epochs and grid points."""
    groups: tuple[ModelGroup, ...]
    """In the order of params.yaml: backbones, then methods."""
