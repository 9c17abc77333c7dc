"""The driver's book of a plan while it runs: who is told of each trial, and how far it is."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from pipeline.results import TrialResult
from pipeline.running.progress import Bar
from pipeline.training.plan import Trial
from pipeline.training.progress import Progress

MACHINES = 10
"""Machines that may be lost under a trial from one of its epochs to the next, or under a job."""


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
        retries: how often a trial is tried again that failed.
        bar: of all trials of the plan.
    """

    def __init__(
        self, progress: Progress, observer: Observer, *, show: bool, retries: int, bar: Bar | None = None
    ) -> None:
        self.progress, self.observer, self.show, self.retries = progress, observer, show, retries
        self.bar = bar
        self.ran = 0
        """How many trials ended under this ledger."""
        self._began: dict[str, float] = {}
        self._active: set[str] = set()
        self._told: dict[str, tuple[str, bool]] = {}
        self._reasons: dict[str, str] = {}
        self._failures: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._epochs: Counter[str] = Counter()
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
        self._told.pop(key, None)

    def epoch(self, key: str, metrics: Mapping[str, float]) -> None:
        """The trial reports an epoch; one that goes on reports the earlier ones again."""
        if metrics["epoch"] > self._epochs[key]:
            self._epochs[key] = int(metrics["epoch"])
            self._lost[key] = 0
            if self.bar is not None:
                self.bar.note(f"{self._epochs.total()} epochs trained")
        self.observer.epoch(self.progress.running[key], metrics)

    def fault(self, key: str, reason: str, *, certain: bool) -> None:
        """The worker says why the attempt fails; `failed` follows.

        Args:
            reason: one line.
            certain: whether another attempt can only end alike, as with a PipelineError.
        """
        self._told[key] = (reason, certain)

    def told(self, key: str) -> bool:
        """Whether the attempt that failed said why, which a worker that dies does not."""
        return key in self._told

    def failed(self, key: str, crash: str = "") -> None:
        """An attempt failed: the trial is handed out again, or ends as failed.

        It ends when the failure is certain, came for this reason before (numbers in it do not count), or `retries`
        attempts failed before. A worker that dies cannot say why, so its reason counts as a new one.

        Args:
            crash: why, where the worker could not say so itself.
        """
        reason, certain = self._told.get(key, (crash, False))
        before, self._reasons[key] = self._reasons.get(key, ""), "" if crash else reason
        self._failures[key] += 1
        alike = bool(before) and _plain(before) == _plain(self._reasons[key])
        if certain or alike or self._failures[key] > self.retries:
            self.end(key, None, reason)
        else:
            self._again(key)

    def lost(self, key: str) -> None:
        """An attempt ended with its machine, which is no failure of the trial's: it goes on elsewhere.

        Where one machine after another is lost before the trial ends an epoch, the trial may be what brings them down.
        """
        self._lost[key] += 1
        if self._lost[key] < MACHINES:
            self._again(key)
        else:
            self.end(key, None, f"{MACHINES} machines in a row were lost under it; give it more memory")

    def all_lost(self) -> None:
        """Every worker is gone with its cluster: what was handed out waits again."""
        for key in [*self.progress.running]:
            self._again(key)

    def _again(self, key: str) -> None:
        self._active.discard(key)
        self.progress.again(key)

    def end(self, key: str, result: TrialResult | None, reason: str = "") -> None:
        """The trial ended, with None for good.

        Args:
            reason: why it failed, one line.
        """
        if key not in self._began:  # its worker never came up
            self.begin(key)
        self._active.discard(key)
        trial = self.progress.end(key, result, reason)
        self.ran += 1
        self.observer.ended(trial, result)
        self._leave(key)
        score = "not defined" if result is None or result.selection is None else f"{result.selection:.4f}"
        self._say(trial, f"selection {score}" if result else f"FAILED: {self.progress.reasons[trial.key]}")

    def stop(self, key: str) -> None:
        """The trial's search stopped it."""
        self._active.discard(key)
        trial = self.progress.stop(key)
        epoch, selection = self.progress.stopped[key]
        self.ran += 1
        self.observer.stopped(trial)
        self._leave(key)
        self._say(trial, f"selection {selection:.4f}, stopped by its search after epoch {epoch}")

    def _leave(self, key: str) -> None:
        """Leave a trial to other drivers, now that its run is complete."""
        if self.progress.claims is not None:
            self.progress.claims.drop(key)

    @property
    def done(self) -> int:
        """How many trials of the plan have ended."""
        return len(self.progress.results) + len(self.progress.stopped)

    def _say(self, trial: Trial, outcome: str) -> None:
        if self.bar is not None:
            self.bar.step(self.done)
        if not self.show:
            return
        done, total = self.done, self.progress.plan.total
        now = time.monotonic()
        left = (now - self._start) / self.ran * (total - done)
        took = now - self._began[trial.key]
        line = f"[{done}/{total}] {trial.label}: {outcome}, {took:.0f} s, about {left / 60:.0f} min left"
        print(line, flush=True)


def _plain(reason: str) -> str:
    return re.sub(r"\d+", "0", reason)
