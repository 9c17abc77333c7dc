"""Shared code of criteria that learn from selection rows."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError, UnsupportedError
from pipeline.evaluation.criteria.base import log_probabilities

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

RIDGE = 1e-4
"""Penalty on squared coefficients of a logistic regression, which rows of one target would drive to infinity."""
FITTED: dict[str, Any] = {"fitted": True}
"""Metadata of a dataclass field that `fit` sets: stored with results, refused in params.yaml."""


def labelled(trace: "Trace", criterion: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (m, exits, classes) float64 and labels (m,) int64 of the rows with a label.

    Raises:
        UnsupportedError: the trace is a regression.
        ArtifactError: no row has a label.
        InvalidLogitsError: a logit is NaN.
    """
    if trace.kind == "regression":
        raise UnsupportedError(
            f"criterion {criterion!r} needs class probabilities and the trace is a regression; use patience"
        )
    if trace.hard:
        raise hard_labels(criterion)
    trace.answers()  # raises on NaN
    has_label = ~np.isnan(trace.labels)
    if not has_label.any():
        raise ArtifactError(f"trace: no row has a label, and criterion {criterion!r} learns from labels; add them")
    return trace.logits[has_label].astype(np.float64), trace.labels[has_label].astype(np.int64)


def hard_labels(criterion: str) -> UnsupportedError:
    """The error for a trace without probabilities."""
    return UnsupportedError(
        f"criterion {criterion!r} needs class probabilities and the trace holds hard labels; use patience or voting"
    )


def exit_costs(trace: "Trace") -> np.ndarray:
    """Mean cost of leaving at each exit as a share of the last one's, (exits,)."""
    costs = trace.flops.mean(axis=0)
    return np.asarray(costs / costs[-1])


def nll(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row in nats, (m, classes), (m,) to (m,); a class that is ruled out counts 100."""
    return np.asarray(np.minimum(-log_probabilities(logits)[np.arange(len(labels)), labels], 100.0))


def logistic_fit(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """Logistic regression with a slight ridge: coefficients, then the bias, (d + 1,).

    Args:
        features: (m, d).
        targets: (m,), of 0 and 1.
        weights: of the rows, (m,).
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    wide = np.column_stack([features, np.ones(len(features))])
    shares = weights / max(weights.sum(), 1e-12)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        total = wide @ x
        value = float(shares @ (np.logaddexp(0, total) - targets * total)) + RIDGE * float(x @ x)
        return value, wide.T @ (shares * (expit(total) - targets)) + 2 * RIDGE * x

    x = minimize(loss, np.zeros(wide.shape[1]), jac=True, method="L-BFGS-B").x
    return tuple(x.tolist())


def mean_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats, (m, classes), (m,)."""
    return -float(np.mean(log_probabilities(logits)[np.arange(len(labels)), labels]))
