"""Shared code of criteria that learn from selection rows."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError, UnsupportedError
from pipeline.evaluation.criteria.base import log_probabilities

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace

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


def mean_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats, (m, classes), (m,)."""
    return -float(np.mean(log_probabilities(logits)[np.arange(len(labels)), labels]))
