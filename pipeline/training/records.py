"""The table of trials: a record of each, with its epochs."""

import math
from collections.abc import Iterator

from pipeline.layout import HERE
from pipeline.results import Epoch, TrialRecord, TrialResult
from pipeline.training.plan import Trial, read_history


def trial_record(
    trial: Trial,
    result: TrialResult | None,
    stopped_after: int | None = None,
    other_code: bool = False,
    run_id: str | None = None,
) -> TrialRecord:
    """A trial as the table of trials has it, with its epochs as far as they are on disk.

    Args:
        stopped_after: epoch after which its search stopped it.
        other_code: whether code trained it that was since changed and declared to do the same.
        run_id: its run in MLflow.
    """
    return TrialRecord(
        key=trial.key,
        group=trial.group,
        settings=dict(trial.settings),
        train_seconds=result.train_seconds if result else None,
        train_seconds_to_best=result.train_seconds_to_best if result else None,
        epochs_run=result.epochs_run if result else None,
        best_epoch=result.best_epoch if result else None,
        stopped_after=stopped_after,
        mlflow_run_id=run_id,
        other_code=other_code,
        versions=result.versions if result else {},
        history=tuple(_epochs(trial.key)),
    )


def _epochs(key: str) -> Iterator[Epoch]:
    """The epochs of a trial that are on disk."""
    for row in read_history(HERE.trial(key)):
        if {"epoch", "train_loss"} <= row.keys():
            selection = row.get("selection", math.nan)
            defined = None if math.isnan(selection) else selection
            yield Epoch(epoch=int(row["epoch"]), train_loss=row["train_loss"], selection=defined)
