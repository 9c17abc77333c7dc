"""A learned schedule (EENet): scores of correctness, and a threshold for each exit that a budget gives."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.errors import ParamsError
from pipeline.evaluation.criteria.base import Array, Criterion, State, log_probabilities
from pipeline.evaluation.criteria.fitting import FITTED, exit_costs, labelled, logistic_fit

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

ROUNDS = 2
"""How often scores and assignments are fitted by turns."""


@dataclass(frozen=True)
class Scheduled(Criterion):
    """Predicted correctness over the exit's own threshold, q_j - t_j (Ilhan et al. 2024); leaves when it is >= theta.

    q_j = sigmoid(w_j . [p_j, max p_j, 1 + sum p_j ln p_j / ln classes, q_1..q_{j-1}] + b_j): the exit's distribution,
    its confidences, and the scores before it. `fit` learns w and b on selection rows by the cross-entropy with "exit j
    is right", where a row weighs what it is assigned to the exit. A row is assigned to exits in shares proportional to
    q_j^sharpness exp(-mu c_j), with costs c_j as shares of the whole model's and mu such that the mean cost is
    1 / speedup. t_j then lets the exit's share of the rows leave there, those of highest score, exit after exit. At
    theta 0 this is EENet's schedule for that budget; other theta shift all its thresholds alike.

    The released code gives the shares by a small network, which it trains towards q^sharpness under a penalty on the
    budget; here they are that optimum itself. Its q is linear and clipped to 0..1, here a sigmoid. Unfitted, q_j is the
    largest probability and t_j is 0.

    Attributes:
        speedup: the budget, as a ratio of costs: whole model / mean.
        sharpness: how much more a likelier exit is preferred. Of 1, 5, 20 and 100 the default was best on halves of the
            selection rows behind docs/results-depth.md; at 1, rows leave at exits that know nothing.
        scores: w_j and b_j of each exit, from `fit`; not a setting of params.yaml.
        cuts: t_j of each exit, the last 0, from `fit`.
    """

    name: ClassVar[str] = "scheduled"
    title: ClassVar[str] = "learned schedule (EENet)"
    source: ClassVar[str] = "Ilhan et al. 2024, Adaptive Deep Neural Network Inference Optimization with EENet"
    speedup: float = 1.5
    sharpness: float = 20.0
    scores: tuple[tuple[float, ...], ...] = field(default=(), metadata=FITTED)
    cuts: tuple[float, ...] = field(default=(), metadata=FITTED)

    def __post_init__(self) -> None:
        if self.speedup < 1:
            raise ParamsError(f"scheduled.speedup: {self.speedup} is below 1; give a budget of the whole model or less")
        if self.sharpness < 0:
            raise ParamsError(f"scheduled.sharpness: {self.sharpness} is below 0; 0 prefers no exit")

    def serves(self, exits: int, classes: int) -> bool:
        rows = [len(row) if isinstance(row, tuple) else 0 for row in self.scores]
        return (rows, len(self.cuts)) in (([], 0), ([classes + 3 + j for j in range(exits)], exits))

    def fit(self, trace: "Trace") -> "Scheduled":
        logits, labels = labelled(trace, self.name)
        right = np.argmax(logits, axis=2) == labels[:, None]
        costs, shares = exit_costs(trace), np.ones(right.shape)
        for _ in range(ROUNDS):
            weights, q = _fit_scores(logits, right, shares)
            shares = assigned(q, costs, self.speedup, self.sharpness)
        return replace(self, scores=weights, cuts=cuts_of(q, shares.mean(axis=0)))

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = array_namespace(values)
        past = list(state.values())
        j = len(past)
        p = xp.exp(log_probabilities(values))
        if self.scores:
            weights = xp.asarray(self.scores[j], dtype=xp.float64, device=device(values))
            parts = [*_confidences(values), *past]
            total = xp.sum(p * weights[: p.shape[-1]], axis=-1) + weights[-1]
            for at, part in enumerate(parts):
                total = total + part * weights[p.shape[-1] + at]
            q = 1 / (1 + xp.exp(-total))
        else:
            q = xp.max(p, axis=-1)
        return {**state, str(j): q}, q - (self.cuts[j] if self.cuts else 0.0)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.unique(np.concatenate([np.linspace(-1.0, 1.0, 81), np.linspace(-0.1, 0.1, 81)]).round(6))

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return -1.0, 1.0


def _confidences(logits: Array) -> list[Array]:
    """Largest probability, and 1 less the entropy over ln classes."""
    xp = array_namespace(logits)
    log_p = log_probabilities(logits)
    finite = xp.where(log_p > -xp.inf, log_p, xp.zeros_like(log_p))
    entropy = -xp.sum(xp.exp(log_p) * finite, axis=-1)
    return [xp.exp(xp.max(log_p, axis=-1)), 1 - entropy / np.log(logits.shape[-1])]


def _fit_scores(
    logits: np.ndarray, right: np.ndarray, shares: np.ndarray
) -> tuple[tuple[tuple[float, ...], ...], np.ndarray]:
    """Weights of each exit's score, and the scores (m, exits)."""
    weights: list[tuple[float, ...]] = []
    scores: list[np.ndarray] = []
    for j in range(logits.shape[1]):
        p = np.exp(log_probabilities(logits[:, j]))
        features = np.column_stack([p, *_confidences(logits[:, j]), *scores])
        weights.append(logistic_fit(features, right[:, j].astype(np.float64), shares[:, j]))
        scores.append(1 / (1 + np.exp(-(features @ np.array(weights[-1][:-1]) + weights[-1][-1]))))
    return tuple(weights), np.stack(scores, axis=1)


def assigned(q: np.ndarray, costs: np.ndarray, speedup: float, sharpness: float) -> np.ndarray:
    """Share of each row that is assigned to each exit, (m, exits): q^sharpness exp(-mu cost), of mean cost 1 / speedup.

    Where the budget is beyond what exits cost, the nearest: all at the cheapest.
    """
    from scipy.optimize import brentq

    def shares(mu: float) -> np.ndarray:
        logs = sharpness * np.log(np.clip(q, 1e-12, None)) - mu * costs
        return np.asarray(np.exp(log_probabilities(logs)))

    def over(mu: float) -> float:
        return float(np.mean(shares(mu) @ costs)) - 1 / speedup

    low, high = -1e4, 1e4
    if over(low) <= 0 or over(high) >= 0:
        return shares(low if over(low) <= 0 else high)
    return shares(brentq(over, low, high))


def cuts_of(q: np.ndarray, shares: np.ndarray) -> tuple[float, ...]:
    """The threshold of each exit that lets its share of all rows leave there, of those that are left; the last is 0."""
    left, rows = np.arange(len(q)), len(q)
    cuts = []
    for j in range(q.shape[1] - 1):
        leaving = min(int(shares[j] * rows), len(left))
        order = left[np.argsort(q[left, j], kind="stable")]
        cuts.append(float(q[order[-leaving], j]) if leaving else 1.0)
        left = order[: len(order) - leaving]
    return (*cuts, 0.0)


CRITERION = Scheduled
