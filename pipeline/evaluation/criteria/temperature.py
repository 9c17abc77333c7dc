"""Calibrated confidence (RightTool): confidence at a temperature that is fitted per exit."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.errors import ParamsError
from pipeline.evaluation.criteria.base import Array, Criterion, State, log_probabilities, probability_sweep
from pipeline.evaluation.criteria.fitting import FITTED, labelled, mean_nll

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

BOUNDS = (0.05, 20.0)
"""Range of temperatures; an exit that is always right, or that has learned nothing, is fitted at a bound."""


@dataclass(frozen=True)
class Temperature(Criterion):
    """Largest softmax probability at the exit's own temperature, max_c softmax(z_j / T_j)(c) (Schwartz et al. 2020).

    A row leaves when the score >= theta. `fit` sets each T_j to the minimum of the negative log-likelihood on selection
    rows (Guo et al. 2017), as RightTool does on its validation set. Thresholds are then chosen on the same rows.
    Unfitted, every T_j is 1 and the criterion is `confidence`. RightTool's exits also differ (each classifier reads a
    learned mix of the layers so far); that belongs to the model, not to the criterion.

    Attributes:
        temperatures: T_1..T_exits, from `fit`; not a setting of params.yaml.
    """

    name: ClassVar[str] = "temperature"
    title: ClassVar[str] = "calibrated confidence (RightTool)"
    source: ClassVar[str] = "Schwartz et al. 2020, The Right Tool for the Job"
    temperatures: tuple[float, ...] = field(default=(), metadata=FITTED)

    def __post_init__(self) -> None:
        if not all(isinstance(t, (int, float)) and t > 0 for t in self.temperatures):
            raise ParamsError(f"temperature.temperatures: {list(self.temperatures)} are not all above 0; fit them")

    def serves(self, exits: int, classes: int) -> bool:
        return len(self.temperatures) in (0, exits)

    def fit(self, trace: "Trace") -> "Temperature":
        logits, labels = labelled(trace, self.name)
        return replace(self, temperatures=tuple(_fit_one(logits[:, j], labels) for j in range(trace.exits)))

    def start(self, n: int, like: Array) -> State:
        xp = array_namespace(like)
        return {"exit": xp.zeros((n,), dtype=xp.int64, device=device(like))}

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = array_namespace(values)
        index = state["exit"]
        if self.temperatures:
            temperature = xp.take(xp.asarray(self.temperatures, dtype=xp.float64, device=device(values)), index)
            values = xp.astype(values, xp.float64) / temperature[:, None]
        return {"exit": index + 1}, xp.exp(xp.max(log_probabilities(values), axis=-1))

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return probability_sweep(1 / classes)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 1 / classes, 1.0


def _fit_one(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest mean negative log-likelihood; it has one minimum in ln T."""
    from scipy.optimize import minimize_scalar

    low, high = np.log(BOUNDS)
    minimum = minimize_scalar(
        lambda log_t: mean_nll(logits / np.exp(log_t), labels), bounds=(low, high), method="bounded"
    )
    return float(np.exp(minimum.x))


CRITERION = Temperature
