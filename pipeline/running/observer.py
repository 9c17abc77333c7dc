"""What happens to trials, told to MLflow: one child run per trial, found again by its key, ended whatever happens."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import TrackingError
from pipeline.layout import HERE
from pipeline.results import TrialRecord, TrialResult
from pipeline.running.mlflow.sending import FINAL
from pipeline.running.runs import TrackedRun
from pipeline.running.signals import held
from pipeline.running.stage import Stage
from pipeline.training.plan import Trial, read_history
from pipeline.training.progress import Progress
from pipeline.training.records import trial_record

_LOGGED = ("kind", "method", "batch_size", "learning_rate", "seed", "data", "weights", "code", "parent")
ARTIFACTS = ("settings.json", "metrics.jsonl", "result.json", "model.json", "error.txt")
"""What of a trial's folder goes to MLflow. The weights stay where they are, named by the key."""


class TrialObserver:
    """Logs a plan's trials below the stage's own run.

    A trial that was killed goes on in the run that it had. What a run lacks of what its trial's folder has is logged
    from there: a driver may die between an epoch and its being told.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.runs: dict[str, TrackedRun] = {}

    def started(self, trial: Trial) -> None:
        settings, task = trial.settings, str(trial.names["task"])
        params = {name: settings[name] for name in _LOGGED if name in settings}
        params |= {"task": task, "backbone": trial.names["backbone"]}
        params |= {f"regime.{name}": value for name, value in settings.get("regime", {}).items()}
        params |= {f"training.{name}": value for name, value in settings["training"].items()}
        params |= {f"backbone.{name}": value for name, value in settings["backbone"].items()}
        tags = {**self.stage.tags, "group": trial.group, "data_hash": str(settings["data"])}
        with held():  # a run that is interrupted as it opens is ended like the others
            run = self.stage.tracker.open(trial.label, tags=tags, params=params, parent=self.stage.run, key=trial.key)
            self.runs[trial.key] = run
        run.log_dataset(task, str(settings["data"]), str(HERE.data(task)), "training")

    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        self.runs[trial.key].log_metrics(metrics, step=int(metrics["epoch"]))

    def ended(self, trial: Trial, result: TrialResult | None) -> None:
        run, folder = self.runs[trial.key], HERE.trial(trial.key)
        self._catch_up(trial.key)
        if result is not None:
            final = {FINAL: float(result.best_epoch), "train_seconds_total": result.train_seconds}
            run.log_metrics(final | ({} if result.selection is None else {"best_selection": result.selection}))
        for name in ARTIFACTS:
            if (folder / name).is_file():
                run.log_artifact(folder / name)
        run.end("FINISHED" if result is not None else "FAILED")

    def stopped(self, trial: Trial) -> None:
        """Its search stopped it; a later one may let it go on, in the same run."""
        self._catch_up(trial.key)
        self.runs[trial.key].end("KILLED")

    def _catch_up(self, key: str) -> None:
        """Log the epochs on disk of which the run does not know."""
        for row in read_history(HERE.trial(key)):
            self.runs[key].log_metrics(row, step=int(row["epoch"]))

    def complete(self, progress: Progress) -> None:
        """Complete the runs of trials that finished while their driver died, or of which the store knows nothing."""
        try:
            known = self.stage.tracker.trials()
        except TrackingError:  # said before; the next run of the stage does it
            return
        for trial in progress.trials():
            result, claims = progress.results.get(trial.key), progress.claims
            if result is None or trial.key in self.runs or _is_complete(known.get(trial.key), result):
                continue
            if claims is None or claims.take(trial.key):  # else another driver is at it
                self.started(trial)
                self.ended(trial, result)
                if claims is not None:
                    claims.drop(trial.key)

    def close(self) -> None:
        """End the runs of trials that were stopped, with the epochs that are on disk."""
        for key, run in self.runs.items():
            if not run.ended:
                self._catch_up(key)
                run.end("KILLED")

    def run_id(self, key: str) -> str | None:
        """The MLflow run of a trial, also of one that finished in an earlier stage run; None if the store lost it."""
        return self.stage.tracker.find(key)

    def record(
        self, trial: Trial, result: TrialResult | None, stopped_after: int | None, other_code: bool = False
    ) -> TrialRecord:
        """A trial as the table of trials has it.

        Args:
            stopped_after: epoch after which its search stopped it.
            other_code: whether code trained it that was since changed and declared to do the same.
        """
        return trial_record(trial, result, stopped_after, other_code, self.run_id(trial.key))


def _is_complete(entry: Any, result: TrialResult) -> bool:
    """Whether MLflow's entry of a trial has all that its folder has."""
    if entry is None or entry.info.status != "FINISHED":
        return False
    return FINAL in entry.data.metrics and entry.data.metrics.get("epoch") == result.epochs_run
