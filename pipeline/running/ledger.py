"""The driver's book of a plan while it runs: who is told of each trial, and how far it is."""

import re
import time
from collections.abc import Mapping
from typing import Protocol

from pipeline.results import TrialResult
from pipeline.training.plan import Trial
from pipeline.training.progress import Progress


class Observer(Protocol):
    """Told of what happens to trials; runs in the driver."""

    def started(self, trial: Trial) -> None: ...
    def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None: ...
    def ended(self, trial: Trial, result: TrialResult | None) -> None: ...
    def stopped(self, trial: Trial) -> None: ...


class Ledger:
    """Keeps a plan's progress while its trials run, tells the observer, and prints a line per trial.

    Args:
        show: whether to print those lines.
    """

    def __init__(self, progress: Progress, observer: Observer, show: bool) -> None:
        self.progress, self.observer, self.show = progress, observer, show
        self.ran = 0
        """How many trials ended under this ledger."""
        self._began: dict[str, float] = {}
        self._active: set[str] = set()
        self._told: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._start = time.monotonic()

    @property
    def idle(self) -> bool:
        """Whether trials were handed out and none has a worker."""
        return bool(self.progress.running) and not self._active

    def begin(self, key: str) -> None:
        """A worker took the trial up, perhaps again after a failure."""
        if key not in self._began:
            self.observer.started(self.progress.running[key])
        self._began[key] = time.monotonic()
        self._active.add(key)
        self._told.discard(key)

    def epoch(self, key: str, metrics: Mapping[str, float]) -> None:
        """The trial reports an epoch."""
        self.observer.epoch(self.progress.running[key], metrics)

    def fault(self, key: str, reason: str, *, certain: bool) -> bool:
        """An attempt failed.

        Args:
            reason: one line.
            certain: whether another attempt can only end alike, as with a PipelineError.

        Returns:
            Whether to give up: it is certain, or failed for this reason before. Numbers in the reason do not count.
        """
        self._told.add(key)
        before, self._reasons[key] = self._reasons.get(key), reason
        return certain or (before is not None and _plain(before) == _plain(reason))

    def told(self, key: str) -> bool:
        """Whether the attempt that failed said why, which a worker that dies does not."""
        return key in self._told

    def again(self, key: str) -> None:
        """A failed attempt will be repeated, once there is a worker."""
        self._active.discard(key)

    def end(self, key: str, result: TrialResult | None, reason: str = "") -> None:
        """The trial ended, with None for good.

        Args:
            reason: why it failed, where the worker could not say so itself.
        """
        if key not in self._began:  # its worker never came up
            self.begin(key)
        self._active.discard(key)
        trial = self.progress.end(key, result, reason or self._reasons.get(key, ""))
        self.ran += 1
        self.observer.ended(trial, result)
        score = "not defined" if result is None or result.selection is None else f"{result.selection:.4f}"
        self._say(trial, f"selection {score}" if result else f"FAILED: {self.progress.reasons[trial.key]}")

    def stop(self, key: str) -> None:
        """The trial's search stopped it."""
        self._active.discard(key)
        trial = self.progress.stop(key)
        epoch, selection = self.progress.stopped[key]
        self.ran += 1
        self.observer.stopped(trial)
        self._say(trial, f"selection {selection:.4f}, stopped by its search after epoch {epoch}")

    def _say(self, trial: Trial, outcome: str) -> None:
        if not self.show:
            return
        done, total = len(self.progress.results) + len(self.progress.stopped), self.progress.plan.total
        now = time.monotonic()
        left = (now - self._start) / self.ran * (total - done)
        took = now - self._began[trial.key]
        line = f"[{done}/{total}] {trial.label}: {outcome}, {took:.0f} s, about {left / 60:.0f} min left"
        print(line, flush=True)


def _plain(reason: str) -> str:
    return re.sub(r"\d+", "0", reason)
