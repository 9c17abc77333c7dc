"""What happens to trials, told to MLflow: one child run per trial, found again by its key, ended whatever happens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.running.mlflow import TrackedRun
from pipeline.running.stage import Stage
from pipeline.training.plan import Trial

_LOGGED = (
    "task",
    "dataset",
    "kind",
    "method",
    "batch_size",
    "learning_rate",
    "seed",
    "depth",
    "width",
    "data",
    "parent",
)


ARTIFACTS = ("settings.json", "metrics.jsonl", "result.json", "model.json", "error.txt")
"""What of a trial's folder goes to MLflow. The weights stay where they are, named by the key."""


class TrialObserver:
    """Logs a plan's trials below the stage's own run; `root` is the parent of the trial folders.

    A trial that was killed goes on in the run that it had; one that had finished before keeps its run untouched.
    """

    def __init__(self, stage: Stage, root: Path) -> None:
        self.stage, self.root = stage, root
        self.runs: dict[str, TrackedRun] = {}

    def started(self, trial: Trial) -> None:
        settings = trial.settings
        params = {name: settings[name] for name in _LOGGED if name in settings}
        backbone = settings.get("backbone")
        if isinstance(backbone, Mapping):
            params["backbone"] = backbone["name"]
        training = settings.get("training")
        if isinstance(training, Mapping):
            params |= {f"training.{name}": value for name, value in training.items()}
        run = self.stage.tracker.open(
            trial.label,
            tags={**self.stage.tags, "group": trial.group, "data_hash": str(settings.get("data", ""))},
            params=params,
            parent=self.stage.run,
            key=trial.key,
        )
        source = str(settings.get("task") or settings.get("dataset"))
        run.log_dataset(
            source,
            str(settings.get("data", "")),
            f"data/tasks/{source}" if "task" in settings else f"data/images/{source}",
            "training",
        )
        self.runs[trial.key] = run

    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        self.runs[trial.key].log_metrics(metrics, step=int(metrics["epoch"]))

    def ended(self, trial: Trial, result: Mapping[str, Any] | None) -> None:
        run = self.runs[trial.key]
        if result is not None:
            final = {"best_epoch": result["best_epoch"], "best_selection": result["selection"]}
            run.log_metrics(final | {"train_seconds_total": result["train_seconds"]})
        for name in ARTIFACTS:
            if (self.root / trial.key / name).is_file():
                run.log_artifact(self.root / trial.key / name)
        run.end("FINISHED" if result is not None else "FAILED")

    def run_id(self, key: str) -> str | None:
        """The MLflow run of a trial, also of one that finished in an earlier stage run; None if the store lost it."""
        return self.runs[key].run_id if key in self.runs else self.stage.tracker.find(key)

    def record(self, trial: Trial, result: Mapping[str, Any] | None) -> dict[str, Any]:
        """A trial as trials.json has it: its settings, what it took, and its run; JSON."""
        names = ("train_seconds", "train_seconds_to_best", "epochs_run", "best_epoch")
        return {
            "key": trial.key,
            "group": trial.group,
            "settings": dict(trial.settings),
            **{name: None if result is None else result[name] for name in names},
            "mlflow_run_id": self.run_id(trial.key),
        }
