"""The driver's book of a plan while it runs: who is told of each trial, and how far it is."""

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
        self._start = time.monotonic()

    def begin(self, key: str) -> None:
        """A worker took the trial up, perhaps again after a failure."""
        if key not in self._began:
            self.observer.started(self.progress.running[key])
        self._began[key] = time.monotonic()

    def epoch(self, key: str, metrics: Mapping[str, float]) -> None:
        """The trial reports an epoch."""
        self.observer.epoch(self.progress.running[key], metrics)

    def end(self, key: str, result: TrialResult | None) -> None:
        """The trial ended, with None for good."""
        if key not in self._began:  # its worker never came up
            self.begin(key)
        trial = self.progress.end(key, result)
        self.ran += 1
        self.observer.ended(trial, result)
        if self.show:
            print(self._line(trial, result), flush=True)

    def _line(self, trial: Trial, result: TrialResult | None) -> str:
        done, total = len(self.progress.results), self.progress.plan.total
        now = time.monotonic()
        left = (now - self._start) / self.ran * (total - done)
        score = "not defined" if result is None or result.selection is None else f"{result.selection:.4f}"
        outcome = f"selection {score}" if result else f"FAILED, see {trial.key}/error.txt"
        took = now - self._began[trial.key]
        return f"[{done}/{total}] {trial.label}: {outcome}, {took:.0f} s, about {left / 60:.0f} min left"
