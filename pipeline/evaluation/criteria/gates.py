"""Learned gates (JEI-DNN): leave when a small gate says that no later exit would be worth its cost."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.errors import ParamsError
from pipeline.evaluation.criteria.base import Array, Criterion, State, log_probabilities, negative_entropy
from pipeline.evaluation.criteria.fitting import FITTED, exit_costs, labelled, logistic_fit, nll

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

RATIO = 10.0
"""Bound on how much more a row of the rarer kind weighs."""


@dataclass(frozen=True)
class Gates(Criterion):
    """Probability that a row should leave by now, g_j = sigmoid(w_j . m_j + b_j) (Regol et al. 2024).

    A row leaves when g_j >= theta.

    m_j holds four numbers of the exit's distribution, as in the released code: largest probability, entropy, margin of
    the two largest, and entropy of the distribution at doubled logits. Entropies are in nats.

    `fit` learns each gate on selection rows. The loss of leaving at exit k is CE_k + trade_off * cost_k, with costs as
    shares of the whole model's; a gate's target is 1 where the exit of the least loss is its own or an earlier one
    ("exit subsequent" in the code), and the rarer target weighs more. The paper trains gates and exits by turns, on
    training rows; here the exits are those of the model, so that only the criterion differs. Its threshold is 1/2, and
    its curve comes from several trade-offs; here one trade-off gives a curve over theta. Unfitted, g_j is the largest
    probability.

    Attributes:
        trade_off: what running all layers costs, in nats.
        gates: w_j and b_j of each exit but the last, from `fit`; not a setting of params.yaml.
    """

    name: ClassVar[str] = "gates"
    title: ClassVar[str] = "learned gates (JEI-DNN)"
    source: ClassVar[str] = "Regol et al. 2024, Jointly-Learned Exit and Inference"
    trade_off: float = 0.5
    gates: tuple[tuple[float, ...], ...] = field(default=(), metadata=FITTED)

    def __post_init__(self) -> None:
        if self.trade_off < 0:
            raise ParamsError(f"gates.trade_off: {self.trade_off} is below 0; a layer costs nothing or more")

    def serves(self, exits: int, classes: int) -> bool:
        rows = [len(row) if isinstance(row, tuple) else 0 for row in self.gates]
        return rows in ([], [5] * (exits - 1))

    def fit(self, trace: "Trace") -> "Gates":
        logits, labels = labelled(trace, self.name)
        each = np.stack([nll(logits[:, j], labels) for j in range(trace.exits)], axis=1)
        best = np.argmin(each + self.trade_off * exit_costs(trace), axis=1)
        return replace(self, gates=tuple(_fit_one(logits[:, j], best <= j) for j in range(trace.exits - 1)))

    def start(self, n: int, like: Array) -> State:
        xp = array_namespace(like)
        return {"exit": xp.zeros((n,), dtype=xp.int64, device=device(like))}

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = array_namespace(values)
        index = state["exit"]
        features = distribution_features(values)
        if not self.gates:
            return {"exit": index + 1}, features[0]
        gates = xp.asarray((*self.gates, (0.0,) * 5), dtype=xp.float64, device=device(values))  # the last has none
        total = xp.take(gates[:, 4], index)
        for at, feature in enumerate(features):
            total = total + feature * xp.take(gates[:, at], index)
        return {"exit": index + 1}, 1 / (1 + xp.exp(-total))

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.linspace(0.0, 1.0, 101)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, 1.0


def distribution_features(logits: Array) -> list[Array]:
    """Largest probability, entropy, margin and entropy at doubled logits, (n, classes) to four of (n,)."""
    xp = array_namespace(logits)
    wide = xp.astype(logits, xp.float64)
    p = xp.sort(xp.exp(log_probabilities(wide)), axis=-1)
    return [p[:, -1], -negative_entropy(wide), p[:, -1] - p[:, -2], -negative_entropy(2 * wide)]


def _fit_one(logits: np.ndarray, leave: np.ndarray) -> tuple[float, ...]:
    features = np.stack(distribution_features(logits), axis=1)
    ratio = np.clip((~leave).sum() / max(leave.sum(), 1), 1 / RATIO, RATIO)
    return logistic_fit(features, leave.astype(np.float64), np.where(leave, ratio, 1.0))


CRITERION = Gates
