"""Selection: the chosen models of a task, copied from the cache of trials."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pipeline.layout import Workspace
from pipeline.results import FailedTrial, GridPoint, ModelGroup, Searched, Selected, SelectedTrial
from pipeline.storage import link_or_copy
from pipeline.tasks.task import Task
from pipeline.training.losses import losses
from pipeline.training.methods import METHODS
from pipeline.training.plan import Group, Trial
from pipeline.training.progress import Progress

MODEL_FILES = ("model.json", "model.safetensors")


def selected_models(
    task: Task, protocol: Literal["holdout", "paper"], groups: Sequence[Group], progress: Progress
) -> Selected:
    """The selected models of a task.

    Args:
        groups: the task's groups.
    """
    return Selected(
        task=task.name,
        modality=task.modality,
        protocol=protocol,
        groups=tuple(_model_group(group, progress) for group in groups),
    )


def keep_models(selected: Selected, workspace: Workspace, folder: Path) -> None:
    """Put the files of the selected models into `folder`, in a folder per key."""
    for group in selected.groups:
        for trial in group.trials:
            for name in MODEL_FILES:
                link_or_copy(workspace.trial(trial.key) / name, folder / trial.key / name)


def _model_group(group: Group, progress: Progress) -> ModelGroup:
    best, results = progress.best(group), progress.results
    assert best is not None  # run_plan refuses a group without one
    first = results[best.key]
    assert first is not None
    trials = progress.trials_of(group)
    ended = {seed: results[t.key] for seed, t in progress.selected(group).items()}
    return ModelGroup(
        group=group.name,
        backbone=group.names["backbone"],
        method=group.names["method"],
        regime=_regime(group),
        multi_exit=METHODS[group.settings["method"]].multi_exit,
        batch_size=best.settings["batch_size"],
        learning_rate=best.settings["learning_rate"],
        grid=tuple(_point(t, progress) for t in trials if t.settings["seed"] == best.settings["seed"]),
        search=searched(group, progress),
        trials=tuple(
            SelectedTrial(seed=seed, key=trial.key, weights_sha256=result.weights_sha256)
            for seed, trial in progress.selected(group).items()
            if (result := ended[seed]) is not None
        ),
        failed=tuple(
            FailedTrial(seed=trial.settings["seed"], key=trial.key, reason=reason)
            for trial, reason in losses(progress, group)
        ),
        layers=first.layers,
        exits=first.exits,
        parameters=first.parameters,
        early_exit_parameters=first.early_exit_parameters,
    )


def _regime(group: Group) -> dict[str, str]:
    name, recipe = group.names["method"], group.settings["method"]
    return ({} if name == recipe else {"recipe": recipe}) | dict(group.settings.get("regime", {}))


def searched(group: Group, progress: Progress) -> Searched:
    """How a group's grid was searched, as far as its trials have ended."""
    first = progress.plan.seeds[0]
    keys = [trial.key for trial in progress.trials_of(group) if trial.settings["seed"] == first]
    results = [result for key in keys if (result := progress.results.get(key)) is not None]
    stopped = [progress.stopped[key].epoch for key in keys if key in progress.stopped]
    return Searched(
        method=group.search.method,
        stopped=len(stopped),
        epochs=sum(result.epochs_run for result in results) + sum(stopped),
        epochs_saved=sum(group.epochs - epoch for epoch in stopped),
    )


def _point(trial: Trial, progress: Progress) -> GridPoint:
    ended = progress.results.get(trial.key)
    stop = progress.stopped.get(trial.key)
    score = stop.selection if stop else ended.selection if ended else None
    return GridPoint(
        batch_size=trial.settings["batch_size"],
        learning_rate=trial.settings["learning_rate"],
        selection=None if score is None else round(score, 6),
        stopped_after=stop.epoch if stop else None,
        key=trial.key,
    )
