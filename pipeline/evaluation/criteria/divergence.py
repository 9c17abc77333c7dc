"""Agreement of distributions (F-PABEE): leave when the exits' distributions have stopped moving."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.evaluation.criteria.base import Array, Criterion, State, log_probabilities, run_length


@dataclass(frozen=True)
class Divergence(Criterion):
    """Run length of exits whose distribution is close to the one before (Gao et al. 2023, F-PABEE).

    cnt_1 = 0;  cnt_j = cnt_{j-1} + 1 if JSD(p_j, p_{j-1}) < tau else 0;  leave when cnt_j >= t.
    JSD(p, q) = KL(p, m) / 2 + KL(q, m) / 2 with m = (p + q) / 2, in nats, 0 to ln 2.

    The released code differs in three points; none is followed. Its divergence is the entropy of m, which is JSD plus
    the mean entropy of p and q, so two uncertain exits that agree do not count. It compares exit j with the state of
    layer j+1 under exit j's classifier, and does not count that layer. It stops a whole batch at once. For regression
    it falls back to patience: use `patience`.

    Attributes:
        tau: Jensen-Shannon divergence in nats below which two exits agree.
    """

    name: ClassVar[str] = "divergence"
    title: ClassVar[str] = "divergence (F-PABEE)"
    symbol: ClassVar[str] = "t"
    source: ClassVar[str] = "Gao et al. 2023, F-PABEE"
    tau: float = 0.01

    def start(self, n: int, like: Array) -> State:
        xp = array_namespace(like)
        # A comparison with NaN is false, so the first exit starts the count at 0.
        return {
            "previous": xp.full_like(like, xp.nan, dtype=xp.float64),
            "count": xp.zeros((n,), dtype=xp.float64, device=device(like)),
        }

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        log_p = log_probabilities(values)
        count = run_length(state["count"], jensen_shannon(log_p, state["previous"]) < self.tau)
        return {"previous": log_p, "count": count}, count

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.arange(exits, dtype=np.float64)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, exits - 1.0


def jensen_shannon(log_p: Array, log_q: Array) -> Array:
    """Jensen-Shannon divergence in nats of log-probabilities, (n, classes), (n, classes) to (n,).

    >>> jensen_shannon(np.log([[0.5, 0.5]]), np.log([[0.5, 0.5]]))
    array([0.])
    """
    xp = array_namespace(log_p)
    p, q = xp.exp(log_p), xp.exp(log_q)
    mean = (p + q) / 2
    log_mean = xp.log(xp.where(mean > 0, mean, xp.ones_like(mean)))
    zero = xp.zeros_like(p)
    parts = p * xp.where(p == 0, zero, log_p - log_mean) + q * xp.where(q == 0, zero, log_q - log_mean)
    return xp.sum(parts, axis=-1) / 2


CRITERION = Divergence
