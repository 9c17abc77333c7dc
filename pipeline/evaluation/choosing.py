"""Choosers: each picks the threshold of a criterion from its sweep over selection rows."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.risks import (
    OF_PROBABILITIES,
    certainty,
    first_by_betting,
    first_by_counting,
    first_controlled,
    losses,
    measure_of,
    measured,
    refuse_without_probabilities,
)
from pipeline.evaluation.sweep import NEVER, Sweep, some_rows, sweep
from pipeline.evaluation.trace import Trace

if TYPE_CHECKING:  # replay needs no pydantic
    from pipeline.results.evaluated import ExitCosts, Rule
    from pipeline.results.latency import RunsIn


@dataclass(frozen=True)
class Choice:
    """A threshold, and whether it meets the chooser's condition on the selection rows."""

    threshold: float
    in_window: bool


@dataclass(frozen=True)
class Chooser(ABC):
    """Base of the choosers."""

    name: ClassVar["Rule"]
    fresh_rows: ClassVar[bool] = False
    """Whether its guarantee needs rows from which the criterion has not learned."""
    bounds_risk: ClassVar[bool] = False
    """Whether rows report a risk."""
    reads_costs: ClassVar[bool] = False
    """Whether it needs the measured cost of each exit."""

    @abstractmethod
    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        """Choose one of a sweep's thresholds by the task's metrics."""

    def prepared(self, swept: Sweep, trace: Trace, criterion: Criterion) -> Sweep:
        """The sweep with what the chooser measures of the answers, where their classes are not enough."""
        return swept

    def risk(self, swept: Sweep) -> np.ndarray | None:
        """The risk that the chooser bounds, measured at each threshold, (k,); None where it bounds none."""
        return None

    def for_model(self, backbone: str, method: str, costs: Sequence["ExitCosts"]) -> "Chooser":
        """The chooser for the models of a group, of whose exits it may need the costs."""
        return self

    def expected_ms(self, swept: Sweep) -> np.ndarray | None:
        """Mean milliseconds a row at each threshold, (k,), by measured costs; None where it has none."""
        return None

    def full_cost(self) -> float | None:
        """Milliseconds of all layers with the last exit alone; None where the chooser has no costs."""
        return None


@dataclass(frozen=True)
class Window(Chooser):
    """The best score whose layer speed-up lies in [low, high] (Zhou et al. 2020, 4.2).

    Ties go to the faster threshold. Where none lies in the window, the nearest is taken, with `in_window` False.
    """

    name: ClassVar["Rule"] = "window"
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

    name: ClassVar["Rule"] = "speedup"
    target: float

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        speed = swept.layer_speedup
        enough = speed >= self.target
        nearest = speed[enough].min() if enough.any() else speed.max()
        return Choice(_best(swept, metrics, np.flatnonzero(speed == nearest)), bool(enough.any()))


@dataclass(frozen=True)
class Risk(Chooser):
    """The fastest threshold whose risk against the full model is at most epsilon.

    Risk is the mean of a loss over rows (after Jazbec et al. 2024, Fast yet Safe):

        gap:               1 where the answer is wrong and the full model right, else 0: max(0, l(early) - l(full)) of
                           the 0-1 loss l. It bounds the fall in accuracy from above, since rows that early exit wins
                           are not subtracted
        consistency:       1 where the answer is another than the full model's; needs no labels
        brier:             growth of the Brier score, sum_c (p_c - [y = c])^2 / 2 of the answer less that of the full
                           model, from -1 to 1: rows that early exit wins are subtracted
        brier_consistency: the same distance between both distributions, from 0 to 1; needs no labels
        error:             regression: growth of the absolute error in units of `tolerance`, clipped to -1..1

    For regression, gap means an error that exceeds the full model's by more than `tolerance` (label units), and
    consistency means an answer more than `tolerance` away from the full model's.

    The bound says in which sense the risk is controlled:

        binomial: risk <= epsilon with probability 1 - delta over the selection rows. The exact binomial tail
                  P[Bin(n, epsilon) <= losses] <= delta, valid for losses of 0 or 1 and sharper than Hoeffding-Bentkus
        betting:  the same promise for any of the losses (Waudby-Smith and Ramdas 2024), as RC-EENN's
        crc:      the mean risk over draws of the selection rows is at most epsilon (conformal risk control,
                  Angelopoulos et al. 2024); delta has no meaning. Less is promised, so more speed is had

    With binomial and betting, thresholds are tested from strict to loose in one fixed sequence, and the last one before
    the first failure is taken (Learn then Test, Angelopoulos et al. 2021). So all tests together err with probability
    at most delta, whether or not risk grows with speed.

    Assumptions: the rows are independent draws from the distribution for which the guarantee is meant, and they chose
    neither the model nor the grid of thresholds. In this pipeline they also picked the checkpoint, so the guarantee is
    for that checkpoint taken as fixed. Where no early exit can be certified, the full model is taken, with `in_window`
    False; under binomial with fewer than ln(delta) / ln(1 - epsilon) rows that is always so.
    """

    name: ClassVar["Rule"] = "risk"
    fresh_rows: ClassVar[bool] = True
    bounds_risk: ClassVar[bool] = True
    epsilon: float
    delta: float = 0.0
    loss: str = "gap"
    tolerance: float = 0.0
    bound: str = "binomial"

    def prepared(self, swept: Sweep, trace: Trace, criterion: Criterion) -> Sweep:
        if self.loss not in OF_PROBABILITIES:
            return swept
        return replace(swept, measured=measured(trace, criterion, measure_of(self.loss, trace)))

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        loss = losses(swept, self.loss, self.tolerance)
        if self.bound == "crc":
            first = first_controlled(loss, swept, self.epsilon)
        elif self.bound == "betting":
            first = first_by_betting(loss, swept, self.epsilon, self.delta)
        else:
            first = first_by_counting(loss, swept, self.epsilon, self.delta)
        threshold = float(swept.thresholds[first]) if first < len(swept.thresholds) else NEVER
        return Choice(threshold, threshold < NEVER)

    def risk(self, swept: Sweep) -> np.ndarray:
        return np.asarray(swept.total(losses(swept, self.loss, self.tolerance)) / len(swept.labels))


@dataclass(frozen=True)
class Online(Chooser):
    """The threshold that a bandit plays most over the selection rows, taken one by one, without a label.

    Ten of the criterion's thresholds are the arms. A row at an arm pays the largest probability of its answer, less
    `cost` times the share of the layers that it ran, and the arm with the largest mean + sqrt(2 ln t / plays) is played
    next (UCB1), as in the unsupervised thresholds of CeeBERT and UBERT (Bajpai and Hanawal 2024; Pacheco et al. 2023).
    Their papers go on learning as they serve; here the choice stands once the rows are through, so that it can be
    reported on other rows. Where probabilities are badly calibrated, so is what it likes.
    """

    name: ClassVar["Rule"] = "online"
    cost: float = 1.0

    def prepared(self, swept: Sweep, trace: Trace, criterion: Criterion) -> Sweep:
        refuse_without_probabilities(trace, "rule 'online'", "rule: window")
        share = np.asarray(trace.layers) / trace.all_layers
        return replace(swept, measured=measured(trace, criterion, certainty) - self.cost * share)

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        assert swept.measured is not None  # `prepared` made it
        arms = np.unique(np.linspace(0, len(swept.thresholds) - 1, ARMS).round().astype(int))
        exits = np.stack([swept.exits_at(int(arm)) for arm in arms])
        rewards = swept.measured[np.arange(exits.shape[1]), exits]
        plays, totals = np.zeros(len(arms)), np.zeros(len(arms))
        for row in range(rewards.shape[1]):
            with np.errstate(divide="ignore", invalid="ignore"):
                liked = totals / plays + np.sqrt(2 * np.log(row + 1) / plays)
            arm = int(np.argmax(np.where(plays == 0, np.inf, liked)))
            plays[arm] += 1
            totals[arm] += rewards[arm, row]
        return Choice(float(swept.thresholds[arms[int(np.argmax(plays))]]), True)


@dataclass(frozen=True)
class Latency(Chooser):
    """The best score whose expected time a row is at most `budget_ms`; ties go to the faster threshold.

        expected(threshold) = sum over exits of (share of selection rows that leave there) * (cost of that exit)

    After EENet (Ilhan et al. 2024), whose schedules are learned for such a budget; here the threshold is chosen for it.
    The cost of exit i is measured: the time to run to it, with the exits on the way, one row at a time, in one engine
    on one machine. The budget bounds the mean over rows, and no single row: a row that no exit answers takes all
    layers. Where nothing is within the budget, the fastest is taken, with `in_window` False.

    Attributes:
        engine: what the costs were measured in.
        costs: milliseconds to leave at each exit; empty until `for_model` has given them.
        full_ms: milliseconds of all layers with the last exit alone.
    """

    name: ClassVar["Rule"] = "latency"
    reads_costs: ClassVar[bool] = True
    budget_ms: float
    engine: "RunsIn" = "pytorch"
    costs: tuple[float, ...] = ()
    full_ms: float | None = None

    def for_model(self, backbone: str, method: str, costs: Sequence["ExitCosts"]) -> Chooser:
        for one in costs:
            if (one.backbone, one.method) == (backbone, method):
                return replace(self, engine=one.engine, costs=one.ms, full_ms=one.full_ms)
        return self

    def choose(self, swept: Sweep, metrics: tuple[str, ...]) -> Choice:
        expected = self.expected_ms(swept)
        within = expected <= self.budget_ms
        candidates = np.flatnonzero(within if within.any() else expected == expected.min())
        return Choice(_best(swept, metrics, candidates, -expected), bool(within.any()))

    def expected_ms(self, swept: Sweep) -> np.ndarray:
        exits = swept.exit_counts.shape[1]
        if len(self.costs) != exits:
            raise ArtifactError(
                f"evaluate.choose: {len(self.costs)} costs for {exits} exits; rule 'latency' needs those of this model"
            )
        return np.asarray(swept.exit_counts @ np.array(self.costs) / len(swept.labels))

    def full_cost(self) -> float | None:
        return self.full_ms


ARMS = 10
"""Number of thresholds among which `Online` plays."""
CHOOSERS: dict[str, type[Chooser]] = {chooser.name: chooser for chooser in (Window, Speedup, Risk, Online, Latency)}


def make_chooser(choose: Mapping[str, Any], window: tuple[float, float]) -> Chooser:
    """The chooser of validated settings (`evaluate.choose` of params.yaml)."""
    if choose["rule"] == Window.name:
        return Window(*window)
    settings = {name: value for name, value in choose.items() if name != "rule" and value is not None}
    return CHOOSERS[choose["rule"]](**settings)


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
    return fitted, chooser.choose(chooser.prepared(sweep(trace, fitted), trace, fitted), metrics)


def _best(swept: Sweep, metrics: tuple[str, ...], candidates: np.ndarray, speed: np.ndarray | None = None) -> float:
    """The threshold of the candidate with the best score; among equals the fastest, by default in layers."""
    value = np.nan_to_num(swept.metrics(metrics)["score"], nan=-np.inf)
    speed = swept.layer_speedup if speed is None else speed
    best = max(candidates, key=lambda i: (value[i], speed[i]))
    return float(swept.thresholds[best])
