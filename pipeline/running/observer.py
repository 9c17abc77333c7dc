"""What happens to trials, told to MLflow: one child run per trial, found again by its key, ended whatever happens."""

from collections.abc import Mapping

from pipeline.layout import HERE
from pipeline.results import TrialRecord, TrialResult
from pipeline.running.mlflow import TrackedRun
from pipeline.running.stage import Stage
from pipeline.training.plan import Trial

_LOGGED = ("kind", "method", "batch_size", "learning_rate", "seed", "data", "weights", "code", "parent")
ARTIFACTS = ("settings.json", "metrics.jsonl", "result.json", "model.json", "error.txt")
"""What of a trial's folder goes to MLflow. The weights stay where they are, named by the key."""


class TrialObserver:
    """Logs a plan's trials below the stage's own run.

    A trial that was killed goes on in the run that it had; one that had finished before keeps its run untouched.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.runs: dict[str, TrackedRun] = {}
        self._heard: dict[str, set[int]] = {}
        """The epochs of each trial that its run has; one that resumes reports them again."""

    def started(self, trial: Trial) -> None:
        settings, task = trial.settings, str(trial.names["task"])
        params = {name: settings[name] for name in _LOGGED if name in settings}
        params |= {"task": task, "backbone": trial.names["backbone"]}
        params |= {f"training.{name}": value for name, value in settings["training"].items()}
        params |= {f"backbone.{name}": value for name, value in settings["backbone"].items()}
        run = self.stage.tracker.open(
            trial.label,
            tags={**self.stage.tags, "group": trial.group, "data_hash": str(settings["data"])},
            params=params,
            parent=self.stage.run,
            key=trial.key,
        )
        run.log_dataset(task, str(settings["data"]), str(HERE.data(task)), "training")
        self.runs[trial.key] = run
        self._heard[trial.key] = run.steps("epoch")

    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        step = int(metrics["epoch"])
        if step not in self._heard[trial.key]:
            self.runs[trial.key].log_metrics(metrics, step=step)
            self._heard[trial.key].add(step)

    def ended(self, trial: Trial, result: TrialResult | None) -> None:
        run = self.runs[trial.key]
        if result is not None:
            final = {"best_epoch": float(result.best_epoch), "train_seconds_total": result.train_seconds}
            run.log_metrics(final | ({} if result.selection is None else {"best_selection": result.selection}))
        for name in ARTIFACTS:
            if (HERE.trial(trial.key) / name).is_file():
                run.log_artifact(HERE.trial(trial.key) / name)
        run.end("FINISHED" if result is not None else "FAILED")

    def run_id(self, key: str) -> str | None:
        """The MLflow run of a trial, also of one that finished in an earlier stage run; None if the store lost it."""
        return self.runs[key].run_id if key in self.runs else self.stage.tracker.find(key)

    def record(self, trial: Trial, result: TrialResult | None, other_code: bool = False) -> TrialRecord:
        """A trial as the table of trials has it.

        Args:
            other_code: whether code trained it that was since changed and declared to do the same.
        """
        return TrialRecord(
            key=trial.key,
            group=trial.group,
            settings=dict(trial.settings),
            train_seconds=result.train_seconds if result else None,
            train_seconds_to_best=result.train_seconds_to_best if result else None,
            epochs_run=result.epochs_run if result else None,
            best_epoch=result.best_epoch if result else None,
            mlflow_run_id=self.run_id(trial.key),
            other_code=other_code,
            versions=result.versions if result else {},
        )
