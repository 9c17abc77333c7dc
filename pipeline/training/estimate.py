"""How long a plan will take, from the trials that were measured on this disk."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.results import Manifest
from pipeline.tasks.splits import SELECTION, TRAIN
from pipeline.training.plan import HISTORY, RESUME, Group, Trial, read_history, read_result
from pipeline.training.progress import Progress

START = 2.0
"""Seconds until a worker that is reused has begun a trial (shared/FACTS: 1.8 s)."""
FORWARD = 1 / 3
"""Cost of a row that is only evaluated, as a share of one that is trained on."""


@dataclass(frozen=True)
class Work:
    """The work that a group still has.

    Attributes:
        trials: number of trials that finetune will run, those that follow a parent's choice included.
        known: those of them that are known already.
        resumed: how many of these go on after an epoch.
        finished: number of trials that are used again.
        stopped: how many of these their search stopped.
        epochs: number of epochs to train, at most.
        seconds: of one slot; None where nothing was measured that resembles it.
        steps: those of them that are optimiser steps.
    """

    group: Group
    trials: int
    known: tuple[Trial, ...]
    resumed: int
    finished: int
    stopped: int
    epochs: float
    seconds: float | None
    steps: float | None


@dataclass(frozen=True)
class Estimate:
    """The work of a plan, group by group.

    Attributes:
        measured: number of trials that the seconds rest on.
        reused: keys of trials that ended, or that their search stopped.
    """

    work: tuple[Work, ...]
    measured: int
    reused: frozenset[str]

    @property
    def trials(self) -> int:
        return sum(work.trials for work in self.work)

    @property
    def seconds(self) -> float | None:
        """Seconds of one slot; None where a group has no measurement."""
        parts = [work.seconds for work in self.work if work.trials]
        return None if None in parts else sum(part for part in parts if part is not None)


def estimate(progress: Progress, manifests: Mapping[str, Manifest]) -> Estimate:
    """Estimate what is left of a plan: an upper bound where a search may stop trials.

    Args:
        progress: the plan with what is on disk.
        manifests: task to its prepared data.
    """
    times = StepTimes(progress.root, manifests.values())
    work = tuple(_work(progress, group, times) for group in progress.plan.groups)
    reused = frozenset(key for key, result in progress.results.items() if result is not None) | {*progress.stopped}
    return Estimate(work, times.measured, reused)


def compared(before: Estimate, progress: Progress) -> str | None:
    """How far an estimate was off, as a line; None where it gave no time, or where nothing ran.

    Compared are seconds of optimiser steps, which trials measure.
    """
    expected, taken, bound = 0.0, 0.0, ""
    for work in before.work:
        if not work.trials or work.steps is None:
            continue
        known = {trial.key for trial in work.known}
        ran = [t for t in progress.trials_of(work.group) if t.key in known or t.key not in before.reused]
        seconds = [took for trial in ran if (took := _seconds(trial, progress)) is not None]
        if not work.resumed and len(seconds) == work.trials:
            expected, taken = expected + work.steps, taken + sum(seconds)
            if any(trial.key in progress.stopped for trial in ran):
                bound = "at most "
    if not taken:
        return None
    off = f"{expected / taken - 1:+.0%}"
    return f"training took {taken:.0f} s of one slot; {bound}{expected:.0f} s were estimated ({off})"


def _seconds(trial: Trial, progress: Progress) -> float | None:
    """Seconds of the steps of a trial that ended, or that its search stopped; None for others."""
    if trial.key in progress.stopped:
        return sum(row.get("train_seconds", 0.0) for row in read_history(progress.root / trial.key))
    result = progress.results.get(trial.key)
    return None if result is None else result.train_seconds


def _work(progress: Progress, group: Group, times: "StepTimes") -> Work:
    made = progress.trials_of(group)
    stopped = [trial for trial in made if trial.key in progress.stopped]
    waiting = [trial for trial in made if progress.results.get(trial.key) is None and trial not in stopped]
    unknown = group.points + len(progress.plan.seeds) - 1 - len(made)
    likely = times.epochs(group.settings) or group.epochs
    done = [len(_history(progress.root / trial.key)) for trial in waiting]
    left = [max(likely - count, 0.0) for count in done]
    costs = [times.epoch(trial.settings) for trial in waiting]
    means = [times.epoch({**group.settings, "batch_size": size}) for size in group.batch_sizes]
    steps = seconds = None
    if None not in costs and (None not in means or not unknown):
        mean = sum(cost or 0.0 for cost in means) / len(means)
        steps = sum((cost or 0.0) * epochs for cost, epochs in zip(costs, left, strict=True)) + unknown * mean * likely
        seconds = steps * times.with_evaluation(group.settings) + START * (len(waiting) + unknown)
    return Work(
        group=group,
        trials=len(waiting) + unknown,
        known=tuple(waiting),
        resumed=sum(count > 0 for count in done),
        finished=len(made) - len(waiting),
        stopped=len(stopped),
        epochs=sum(left) + unknown * likely,
        seconds=seconds,
        steps=steps,
    )


def _history(directory: Path) -> list[dict[str, float]]:
    """The epochs after which an interrupted trial goes on."""
    return read_history(directory) if (directory / RESUME).is_file() else []


class StepTimes:
    """Seconds per epoch of trials on this disk, by what they trained.

    A trial's time is that of the most similar trials that were measured: the same data, backbone, method and batch
    size; else in proportion to the size of the data; else with another batch size; else with another method.
    """

    def __init__(self, root: Path, manifests: Iterable[Manifest]) -> None:
        self._sizes = {
            inputs.hash: _size(manifest, inputs.tokens) for manifest in manifests for inputs in manifest.inputs.values()
        }
        self._times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        self._epochs: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        self.measured = 0
        for path in root.glob(f"*/{HISTORY}"):
            self._measure(path.parent)

    def _measure(self, folder: Path) -> None:
        result = read_result(folder)
        try:
            settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if result is None or not result.epochs_run or settings.get("data") not in self._sizes:
            return
        self.measured += 1
        train, _ = self._sizes[settings["data"]]
        seconds = result.train_seconds / result.epochs_run
        for level in self._levels(settings):
            self._times[level].append(seconds / train)
        self._epochs[self._levels(settings)[0][:-1]].append(result.epochs_run)

    def _levels(self, settings: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """What a measurement counts for, the nearest first."""
        backbone = json.dumps([settings["modality"], settings["backbone"], settings["weights"]], sort_keys=True)
        method, size, data = settings["method"], settings.get("batch_size"), settings["data"]
        return (backbone, method, data, size), (backbone, method, "", size), (backbone, method), (backbone,)

    def epoch(self, settings: Mapping[str, Any]) -> float | None:
        """Seconds of the steps of one epoch; None where nothing alike was measured."""
        train, _ = self._sizes.get(settings["data"], (0.0, 0.0))
        for level in self._levels(settings):
            if level in self._times:
                return median(self._times[level]) * train
        return None

    def with_evaluation(self, settings: Mapping[str, Any]) -> float:
        """Time of an epoch with its evaluation, in times of its steps."""
        train, selection = self._sizes.get(settings["data"], (1.0, 0.0))
        return 1 + FORWARD * selection / max(train, 1.0)

    def epochs(self, settings: Mapping[str, Any]) -> float | None:
        """Epochs that trials alike ran before they stopped; None where none was measured."""
        counts = self._epochs.get(self._levels(settings)[0][:-1])
        return None if counts is None else sum(counts) / len(counts)


def _size(manifest: Manifest, tokens: Mapping[str, Any]) -> tuple[float, float]:
    """Tokens of an epoch of training and of its evaluation; images count as one each."""
    sizes = (manifest.splits[name].rows * (tokens[name].mean if name in tokens else 1.0) for name in (TRAIN, SELECTION))
    train, selection = sizes
    return train, selection
