"""Choosers: each picks the threshold of a criterion from its sweep over selection rows."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.sweep import NEVER, Sweep, some_rows, sweep
from pipeline.evaluation.trace import Trace

Name = Literal["window", "speedup", "risk"]


@dataclass(frozen=True)
class Choice:
    """A threshold, and whether it meets the chooser's condition on the selection rows."""

    threshold: float
    in_window: bool


@dataclass(frozen=True)
class Chooser(ABC):
    """Base of the choosers."""

    name: ClassVar[Name]
    fresh_rows: ClassVar[bool] = False
    """Whether its guarantee needs rows from which the criterion has not learned."""

    @abstractmethod
    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        """Choose one of a sweep's thresholds by the task's metrics."""

    def risk(self, swept: Sweep) -> np.ndarray | None:
        """The risk that the chooser bounds, measured at each threshold, (k,); None where it bounds none."""
        return None


@dataclass(frozen=True)
class Window(Chooser):
    """The best score whose layer speed-up lies in [low, high] (Zhou et al. 2020, 4.2).

    Ties go to the faster threshold. Where none lies in the window, the nearest is taken, with `in_window` False.
    """

    name: ClassVar[Name] = "window"
    low: float
    high: float

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        speed = swept.layer_speedup
        inside = (speed >= self.low) & (speed <= self.high)
        if inside.any():
            return Choice(_best(swept, metrics, np.flatnonzero(inside)), True)
        distance = np.maximum(self.low - speed, speed - self.high)
        return Choice(_best(swept, metrics, np.flatnonzero(distance == distance.min())), False)


@dataclass(frozen=True)
class Speedup(Chooser):
    """The threshold with the smallest layer speed-up that is at least `target`; among equals the best score.

    Where none is that fast, the fastest is taken, with `in_window` False.
    """

    name: ClassVar[Name] = "speedup"
    target: float

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        speed = swept.layer_speedup
        enough = speed >= self.target
        nearest = speed[enough].min() if enough.any() else speed.max()
        return Choice(_best(swept, metrics, np.flatnonzero(speed == nearest)), bool(enough.any()))


@dataclass(frozen=True)
class Risk(Chooser):
    """The fastest threshold whose risk against the full model is at most epsilon, with probability 1 - delta.

    Risk is the share of rows lost, a mean of losses of 0 or 1 (after Jazbec et al. 2024, Fast yet Safe, who bound the
    same two differences):

        gap:          wrong where the full model is right, max(0, l(early, y) - l(full, y)) of the 0-1 loss l. It
                      bounds the fall in accuracy from above, since rows that early exit wins are not subtracted
        consistency:  another answer than the full model's; needs no labels

    For regression, gap means an error that exceeds the full model's by more than `tolerance` (label units), and
    consistency means an answer more than `tolerance` away from the full model's.

    Thresholds are tested from strict to loose in one fixed sequence, and the last one before the first failure is taken
    (Learn then Test, Angelopoulos et al. 2021). So all tests together err with probability at most delta, whether or
    not risk grows with speed. Each test is the exact binomial tail P[Bin(n, epsilon) <= losses] <= delta, which is
    valid for losses of 0 or 1 and sharper than Hoeffding-Bentkus.

    Assumptions: the rows are independent draws from the distribution for which the guarantee is meant, and they chose
    neither the model nor the grid of thresholds. In this pipeline they also picked the checkpoint, so the guarantee is
    for that checkpoint taken as fixed. Where no early exit can be certified, the full model is taken, with `in_window`
    False; with fewer than ln(delta) / ln(1 - epsilon) rows that is always so.
    """

    name: ClassVar[Name] = "risk"
    fresh_rows: ClassVar[bool] = True
    epsilon: float
    delta: float
    loss: str = "gap"
    tolerance: float = 0.0

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        from scipy.special import bdtr  # the binomial distribution function

        rows = len(swept.labels)
        p_values = bdtr(np.rint(self.risk(swept) * rows), rows, self.epsilon)
        failed = np.flatnonzero(p_values > self.delta)
        first = failed[-1] + 1 if len(failed) else 0  # the loosest threshold of the successes at the strict end
        threshold = float(swept.thresholds[first]) if first < len(swept.thresholds) else NEVER
        return Choice(threshold, threshold < NEVER)

    def risk(self, swept: Sweep) -> np.ndarray:
        return np.asarray(swept.total(lost(swept, self.loss, self.tolerance)) / len(swept.labels))


CHOOSERS: dict[str, type[Chooser]] = {chooser.name: chooser for chooser in (Window, Speedup, Risk)}


def make_chooser(choose: Mapping[str, Any], window: tuple[float, float]) -> Chooser:
    """The chooser of validated settings (`evaluate.choose` of params.yaml)."""
    if choose["rule"] == Window.name:
        return Window(*window)
    settings = {name: value for name, value in choose.items() if name != "rule" and value is not None}
    return CHOOSERS[choose["rule"]](**settings)


def lost(swept: Sweep, loss: str, tolerance: float = 0.0) -> np.ndarray:
    """Whether each row, leaving at each exit, is lost against the full model, (n, exits) boolean; see `Risk`.

    Raises:
        ArtifactError: loss "gap" and a row without a label.
    """
    full = swept.answers[:, -1:]
    labels = swept.labels[:, None]
    if loss == "gap" and np.isnan(swept.labels).any():
        raise ArtifactError(
            f"trace: {int(np.isnan(swept.labels).sum())} rows have no label, and the loss 'gap' needs all; "
            "use loss: consistency"
        )
    if swept.kind == "regression":
        away = np.abs(swept.answers - full) if loss == "consistency" else _grown(swept.answers, labels)
        return np.asarray(away > tolerance)
    return np.asarray(swept.answers != full if loss == "consistency" else (swept.answers != labels) & (full == labels))


def _grown(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    error = np.abs(answers - labels)
    return np.asarray(error - error[:, -1:])


def fit_and_choose(
    criterion: Criterion, trace: Trace, metrics: tuple[str, ...], chooser: Chooser
) -> tuple[Criterion, Choice]:
    """Fit a criterion on selection rows, and choose its threshold on them.

    A bound with one threshold (oracle) keeps it. For a chooser that needs fresh rows, a criterion that learns is fitted
    on every second row, and the other rows choose.
    """
    settings = criterion.thresholds(trace.exits, trace.classes)
    if not criterion.causal and len(settings) == 1:
        return criterion, Choice(float(settings[0]), True)
    fitted = criterion.fit(trace)
    if fitted != criterion and chooser.fresh_rows:
        fitted = criterion.fit(some_rows(trace, slice(0, None, 2)))
        trace = some_rows(trace, slice(1, None, 2))
    return fitted, chooser.choose(sweep(trace, fitted), metrics)


def _best(swept: Sweep, metrics: tuple[str, ...], candidates: np.ndarray) -> float:
    """The threshold of the candidate with the best score; among equals the fastest."""
    value = np.nan_to_num(swept.metrics(metrics)["score"], nan=-np.inf)
    best = max(candidates, key=lambda i: (value[i], swept.layer_speedup[i]))
    return float(swept.thresholds[best])
