"""Trials that a plan lost: those that failed, and those that could not run since they start from one that failed."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import TrialsFailedError
from pipeline.training.plan import Group, Trial
from pipeline.training.progress import Progress

NAMED = 3
"""Most missing points that are named in one line; the lines before it name all."""


class Loss(NamedTuple):
    """A trial without a result, and why, in one line."""

    trial: Trial
    reason: str


def losses(progress: Progress, group: Group) -> list[Loss]:
    """The trials of one group that failed, then those that could not run."""
    failed = (trial for trial in progress.trials_of(group) if trial.key in progress.reasons)
    blocked = (Loss(t, f"not run: the trial {t.parent} that it starts from failed") for t in _blocked(progress, group))
    return [*(Loss(trial, progress.reasons[trial.key]) for trial in failed), *blocked]


def refuse_empty(progress: Progress) -> None:
    """Refuse a plan with a group that has no choice, since no trial of its grid finished.

    Raises:
        TrialsFailedError: it names the first such group, and why.
    """
    for group in progress.plan.groups:
        grid = progress.grid(group)
        if progress.best(group) is None and grid:  # a group without a grid lacks its parent's choice
            failed = [trial.key for trial in grid if trial.key in progress.reasons]
            why = f" ({progress.reasons[failed[0]]})" if failed else ""
            where = f"; see error.txt in the trial folders {', '.join(failed[:NAMED])}" if failed else ""
            raise TrialsFailedError(
                f"{group.name}: no trial of its grid finished{why}{where}; mend the settings and run `dvc repro` again"
            )


def refuse_missing(progress: Progress) -> None:
    """Refuse choices from grids with points that failed: the best point may be among them.

    Raises:
        TrialsFailedError: it names them.
    """
    first = progress.plan.seeds[0]
    missing = [
        f"{loss.trial.label} ({loss.reason})"
        for group in progress.plan.groups
        for loss in losses(progress, group)
        if loss.trial.settings["seed"] == first
    ]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise TrialsFailedError(
            f"{len(missing)} of the grid's points failed: {'; '.join(missing[:NAMED])}{more}; all else has run and is "
            "kept. `dvc repro` tries them again; take them out of the grid, or set on_missing: report to choose "
            "without them"
        )


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
