"""How an operating point is chosen on selection rows: rules under one contract, each naming a threshold of a sweep."""

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
    """A threshold, and whether the rule's condition could be met by it on the rows that chose it."""

    threshold: float
    in_window: bool


@dataclass(frozen=True)
class Rule(ABC):
    """A way to choose."""

    name: ClassVar[Name]
    fresh_rows: ClassVar[bool] = False
    """Whether its promise holds only on rows from which the criterion itself learned nothing."""

    @abstractmethod
    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        """Choose one of a sweep's thresholds; `metrics` are the task's."""

    def risk(self, swept: Sweep) -> np.ndarray | None:
        """What the rule bounds, as measured at each threshold, (k,); None for a rule that bounds no risk."""
        return None


@dataclass(frozen=True)
class Window(Rule):
    """The best score whose layer speed-up lies in [low, high] (Zhou et al. 2020, 4.2).

    Ties go to the faster one. Where no threshold lies in the window, the one nearest to it is taken and says so.
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
class Speedup(Rule):
    """The setting with the smallest layer speed-up that is at least `target`; among equals the best score.

    Where none is that fast, the fastest is taken and says so.
    """

    name: ClassVar[Name] = "speedup"
    target: float

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        speed = swept.layer_speedup
        enough = speed >= self.target
        wanted = speed[enough].min() if enough.any() else speed.max()
        return Choice(_best(swept, metrics, np.flatnonzero(speed == wanted)), bool(enough.any()))


@dataclass(frozen=True)
class Risk(Rule):
    """The fastest setting whose risk against the full model is at most epsilon, with probability 1 - delta.

    Risk is the share of rows lost, a mean of losses of 0 or 1 (after Jazbec et al. 2024, Fast yet Safe, who bound the
    same two differences):

        gap:          wrong where the full model is right, max(0, l(early, y) - l(full, y)) of the 0-1 loss l; it
                      bounds the fall in accuracy from above, for rows won back are not set off against it
        consistency:  another answer than the full model's; needs no labels

    Regression: wrong by more than `tolerance` (label units) beyond the full model's error; more than that away from
    its answer.

    Thresholds are tested from strict to loose in one fixed sequence and the last before the first failure is taken
    (Learn then Test, Angelopoulos et al. 2021), so all tests together err with probability at most delta, whether or
    not risk grows with speed. Each test is the exact binomial tail P[Bin(n, epsilon) <= losses] <= delta, valid
    for losses of 0 or 1 and sharper there than Hoeffding-Bentkus. Assumed: the rows are independent draws from the
    distribution on which the promise is to hold, and chose neither the model nor the grid of thresholds; where they
    also picked the checkpoint, as in this pipeline, it holds for the checkpoint as if given. Where no early exit can be
    certified the full model is taken and says so: with fewer than ln(delta) / ln(1 - epsilon) rows always.
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
        first = failed[-1] + 1 if len(failed) else 0  # of the run of successes at the strict end
        threshold = float(swept.thresholds[first]) if first < len(swept.thresholds) else NEVER
        return Choice(threshold, threshold < NEVER)

    def risk(self, swept: Sweep) -> np.ndarray:
        return np.asarray(swept.total(lost(swept, self.loss, self.tolerance)) / len(swept.labels))


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Window, Speedup, Risk)}


def make_rule(choose: Mapping[str, Any], window: tuple[float, float]) -> Rule:
    """The rule that validated settings (`choose` of params.yaml) ask for."""
    if choose["rule"] == Window.name:
        return Window(*window)
    settings = {name: value for name, value in choose.items() if name != "rule" and value is not None}
    return RULES[choose["rule"]](**settings)


def lost(swept: Sweep, loss: str, tolerance: float = 0.0) -> np.ndarray:
    """Whether a row that leaves at each exit counts as lost against the full model, (n, exits) boolean; see `Risk`.

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
    criterion: Criterion, trace: Trace, metrics: tuple[str, ...], rule: Rule
) -> tuple[Criterion, Choice]:
    """A criterion with what it learns from selection rows, and its operating point chosen on them.

    A bound of one setting (oracle) stands at that one, however fast it is: there is nothing to choose. Under a rule
    that needs fresh rows a criterion that learns does so on every second row and the others choose.
    """
    settings = criterion.thresholds(trace.exits, trace.classes)
    if not criterion.causal and len(settings) == 1:
        return criterion, Choice(float(settings[0]), True)
    fitted = criterion.fit(trace)
    if fitted != criterion and rule.fresh_rows:
        fitted = criterion.fit(some_rows(trace, slice(0, None, 2)))
        trace = some_rows(trace, slice(1, None, 2))
    return fitted, rule.choose(sweep(trace, fitted), metrics)


def _best(swept: Sweep, metrics: tuple[str, ...], candidates: np.ndarray) -> float:
    """The candidate with the best score, the faster one among equals."""
    value = np.nan_to_num(swept.metrics(metrics)["score"], nan=-np.inf)
    best = max(candidates, key=lambda i: (value[i], swept.layer_speedup[i]))
    return float(swept.thresholds[best])
