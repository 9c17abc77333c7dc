"""The watch over a served model: where rows leave against what the selection rows promised, and what they cost.

    watch = PromiseWatch(model, WatchSettings())
    deepest = watch.deepest("patience", rule)              # None: no cap holds
    on_to_the_end = watch.answered("patience", rule, exit_index)
    watch.compared("patience", exit_index, logits, last)   # for rows that went on
    watch.metrics()                                        # for Prometheus

Only exported operating points are watched: a threshold that a request brings has no promise. It needs NumPy, pydantic
and prometheus_client; docs/design/watch.md says how drift is told.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from pipeline.evaluation.asked import Decision
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.leaving import Rule
from pipeline.models.deploy.runtime import Deployed
from pipeline.serving.drift import Drift
from pipeline.serving.metrics import Metrics
from pipeline.serving.settings import WatchSettings

MINUTE = 60.0
EXPORTED, REQUEST = "exported", "request"
"""Where a threshold comes from, as a label of the metrics."""
_log = logging.getLogger("early_exit.watch")


@dataclass(frozen=True)
class Promised:
    """What the selection rows promised of an operating point.

    Attributes:
        criterion: with its settings and fit.
        threshold: infinite where no row leaves early.
        counts: rows that left at each exit, (exits,).
        layers: mean layers run.
        difference: mean difference from the last exit's answers.
        deepest: index of the deepest exit within the mean layers; 0 where there is none.
    """

    criterion: Criterion | None
    threshold: float
    counts: np.ndarray
    layers: float
    difference: float
    deepest: int

    @classmethod
    def of(cls, point: Decision, promise: Mapping[str, Any], exits: Sequence[int]) -> "Promised":
        """From an operating point, its entry of `promises` in model.json, and the layers with an exit."""
        counts = np.asarray(promise["exit_counts"])
        layers = float(counts @ np.asarray(exits)) / float(counts.sum())
        within = [index for index, layer in enumerate(exits) if layer <= layers]
        return cls(*point, counts, layers, promise["difference"], max(within, default=0))


class PromiseWatch:
    """Counts of one served model, its drift and its cap; safe to call from several threads.

    Args:
        clock: seconds.
        seed: of the rows that go on to the last exit, and of drift's ties.

    Raises:
        ParamsError: a cap, and nothing was promised.
    """

    def __init__(
        self,
        model: Deployed,
        settings: WatchSettings,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
    ) -> None:
        exits = model.segments.exits
        self.settings, self.exits = settings, np.asarray(exits)
        self.regression = not model.description["label_names"]
        promises = model.description["precisions"][model.precision]["promises"]
        settings.refuse_without(promises)
        self.points = {
            name: Promised.of(point, promise, exits)
            for (name, point), promise in zip(model.points.items(), promises, strict=True)
        }
        self.drifts = {
            name: Drift(point.counts.tolist(), settings.drift_alarm, settings.drift_window, seed)
            for name, point in self.points.items()
        }
        self._default = self.points.get(model.default)
        self._clock, self._random, self._lock = clock, np.random.default_rng(seed), Lock()
        self._extra = _Minute()
        self._metrics = Metrics()
        for name, point in self.points.items():
            self._metrics.promise(name, point.counts / point.counts.sum(), point.layers, point.difference)

    def deepest(self, criterion: str, rule: Rule) -> int | None:
        """The deepest exit within the promised mean while the cap holds.

        What has no promise is held against that of the criterion at which the model answers where none is asked.
        """
        point = self._exported(criterion, rule) or self._default
        return point.deepest if point is not None and self._capped() else None

    def answered(self, criterion: str, rule: Rule, exit_index: int) -> bool:
        """Count a row that left.

        A row that the cap held does not count for drift, since its own exit is not known.

        Returns:
            Whether the row is to go on to the last exit, so that the answers can be compared.
        """
        end = len(self.exits) - 1
        capped = rule.last < end
        own = self._exported(criterion, rule)
        with self._lock:
            self._metrics.count_row(criterion, EXPORTED if own else REQUEST, exit_index, capped)
            point = own or self._default
            if point is not None:
                self._extra.add(self._clock(), float(self.exits[exit_index]) - point.layers)
            if own is None or capped:
                return False
            self._bet(criterion, exit_index)
            goes_on = bool(self._random.random() < self.settings.check_share)
            if goes_on and exit_index == end:
                self._metrics.checked.labels(criterion).inc()  # its answer is the last exit's
            return goes_on and exit_index < end

    def compared(self, criterion: str, exit_index: int, logits: np.ndarray, last: np.ndarray) -> None:
        """Count a row that had left and reached the last exit; arguments as `answered`, and logits, (outputs,)."""
        different = abs(float(logits[0]) - float(last[0])) if self.regression else logits.argmax() != last.argmax()
        with self._lock:
            self._metrics.checked.labels(criterion).inc()
            self._metrics.difference.labels(criterion).inc(float(different))

    def request(self, status: int, seconds: float) -> None:
        """Count a request, answered or not, by the status of HTTP."""
        with self._lock:
            self._metrics.requests.labels(str(status)).inc()
            self._metrics.seconds.observe(seconds)

    def metrics(self) -> str:
        """All numbers in Prometheus' text format."""
        with self._lock:
            self._metrics.extra.set(self._extra.sum(self._clock()))
            for criterion, drift in self.drifts.items():
                self._metrics.stake.labels(criterion).set(drift.stake)
                self._metrics.drift.labels(criterion).set(drift.raised)
            return self._metrics.text()

    def _exported(self, criterion: str, rule: Rule) -> Promised | None:
        """The promise of a rule; None: of its threshold or its settings there is none."""
        point = self.points.get(criterion)
        same = point is not None and (point.criterion, point.threshold) == (rule.criterion, rule.threshold)
        return point if same else None

    def _capped(self) -> bool:
        cap = self.settings.extra_layers_per_minute
        if cap is None:
            return False
        with self._lock:
            return self._extra.sum(self._clock()) >= cap

    def _bet(self, criterion: str, exit_index: int) -> None:
        drift = self.drifts[criterion]
        raised = drift.raised
        if not drift.see(exit_index):
            return
        self._metrics.alarms.labels(criterion).inc()
        if not raised:  # once, not at each alarm that follows
            _log.warning(
                "drift at criterion %s: the last %d rows ran %.2f layers on average, and the selection rows promised "
                "%.2f; look at the texts, or export the model anew with rows like them",
                criterion, len(drift.recent), self.exits[list(drift.recent)].mean(), self.points[criterion].layers,
            )  # fmt: skip


class _Minute:
    """The sum of what was added in the last minute."""

    def __init__(self) -> None:
        self._parts: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, now: float, value: float) -> None:
        self._parts.append((now, value))
        self._sum += value
        self.sum(now)  # forgets what is older

    def sum(self, now: float) -> float:
        while self._parts and self._parts[0][0] <= now - MINUTE:
            self._sum -= self._parts.popleft()[1]
        if not self._parts:
            self._sum = 0.0  # without what rounding left
        return self._sum
