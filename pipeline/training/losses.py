"""Trials that a plan lost: those that failed, and those that could not run since they start from one that failed."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.training.plan import Group, Trial
from pipeline.training.progress import Progress


class Loss(NamedTuple):
    """A trial without a result, and why, in one line."""

    trial: Trial
    reason: str


def losses(progress: Progress, group: Group) -> list[Loss]:
    """The trials of one group that failed, then those that could not run."""
    failed = (trial for trial in progress.trials_of(group) if trial.key in progress.reasons)
    blocked = (Loss(t, f"not run: the trial {t.parent} that it starts from failed") for t in _blocked(progress, group))
    return [*(Loss(trial, progress.reasons[trial.key]) for trial in failed), *blocked]


def _blocked(progress: Progress, group: Group) -> Iterator[Trial]:
    """The further seeds whose start, the parent's trial of that seed, failed or is blocked itself."""
    best, plan = progress.best(group), progress.plan
    if best is None or group.parent is None:
        return
    parent = next(other for other in plan.groups if other.name == group.parent)
    failed = (trial for trial in progress.selected(parent).values() if trial.key in progress.reasons)
    starts = {trial.settings["seed"]: trial.key for trial in (*failed, *_blocked(progress, parent))}
    for seed in plan.seeds[1:]:
        if seed in starts:
            yield plan.reseeded(group, best, seed, starts[seed])
