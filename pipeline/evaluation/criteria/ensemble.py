"""Ensemble of exits (Zero Time Waste): leave when the exits so far are confident together; they answer together."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.evaluation.criteria.base import Array, Criterion, State, log_probabilities, probability_sweep
from pipeline.evaluation.criteria.fitting import FITTED, labelled

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

LOWEST = -1e30
"""Log-probability of a class that an exit rules out: minus infinity would be NaN under a weight of 0."""
LARGEST = 10.0
"""Bound on a weight: without it, rows that all exits get right would drive weights to infinity."""


@dataclass(frozen=True)
class Ensemble(Criterion):
    """Confidence of the weighted geometric mean of the exits so far, max_c q_j(c) (Wolczyk et al. 2021).

    ln q_j(c) = sum_{i<=j} w_ji ln p_i(c) + b_j(c) - ln Z;  leaves when max q_j >= theta, and answers with q_j.

    `fit` minimises the negative log-likelihood of q_j over w_j >= 0 and b_j on selection rows, for each exit; the
    paper does so on training rows by gradient descent. Unfitted, w_ji = 1/j and b = 0: the geometric mean. The
    released code uses exp(w) / j as weights, a change of variable, and like this one lets the last exit answer alone.
    The paper's cascade (each head reads the head before it) belongs to the model, not to the criterion.

    Attributes:
        weights: row j holds w_j1..w_jj, from `fit`; not a setting of params.yaml.
        biases: row j holds b_j, one per class, from `fit`.
    """

    name: ClassVar[str] = "ensemble"
    title: ClassVar[str] = "ensemble (Zero Time Waste)"
    source: ClassVar[str] = "Wolczyk et al. 2021, Zero Time Waste"
    weights: tuple[tuple[float, ...], ...] = field(default=(), metadata=FITTED)
    biases: tuple[tuple[float, ...], ...] = field(default=(), metadata=FITTED)

    def serves(self, exits: int, classes: int) -> bool:
        weights, biases = (
            [len(row) if isinstance(row, tuple) else 0 for row in rows] for rows in (self.weights, self.biases)
        )
        return weights in ([], list(range(1, exits + 1))) and biases in ([], [classes] * exits)

    def fit(self, trace: "Trace") -> "Ensemble":
        logits, labels = labelled(trace, self.name)
        log_p = _finite(log_probabilities(logits))
        fits = [_fit_one(log_p[:, : j + 1], labels) for j in range(trace.exits)]
        return replace(self, weights=tuple(w for w, _ in fits), biases=tuple(b for _, b in fits))

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = array_namespace(values)
        log_p = _finite(log_probabilities(values))
        past = [*(value for name, value in state.items() if name != "answer"), log_p]
        exits = len(past)
        weights = self.weights[exits - 1] if self.weights else (1 / exits,) * exits
        # One exit at a time, so that rounding does not depend on the number of rows.
        mixed = past[0] * weights[0]
        for i in range(1, exits):
            mixed = mixed + past[i] * weights[i]
        if self.biases:
            mixed = mixed + xp.asarray(self.biases[exits - 1], dtype=xp.float64, device=device(values))
        log_q = log_probabilities(mixed)
        return {str(i): value for i, value in enumerate(past)} | {"answer": log_q}, xp.exp(xp.max(log_q, axis=-1))

    def answer(self, state: State, logits: Array) -> Array:
        return state["answer"]

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return probability_sweep(1 / classes)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 1 / classes, 1.0


def _finite(log_p: Array) -> Array:
    xp = array_namespace(log_p)
    return xp.where(log_p < LOWEST, xp.full_like(log_p, LOWEST), log_p)


def _fit_one(log_p: np.ndarray, labels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights (j,) and biases (classes,) of one exit's ensemble; the likelihood is convex in both."""
    from scipy.optimize import minimize

    n, exits, classes = log_p.shape
    truth = np.eye(classes)[labels]

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        log_q = log_probabilities(np.einsum("j,njc->nc", x[:exits], log_p) + x[exits:])
        slope = (np.exp(log_q) - truth) / n
        return -float(np.sum(log_q * truth) / n), np.concatenate(
            [np.einsum("nc,njc->j", slope, log_p), slope.sum(axis=0)]
        )

    start = np.concatenate([np.full(exits, 1 / exits), np.zeros(classes)])
    bounds = [(0.0, LARGEST)] * exits + [(-LARGEST, LARGEST)] * classes
    x = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return tuple(x[:exits].tolist()), tuple(x[exits:].tolist())


CRITERION = Ensemble
