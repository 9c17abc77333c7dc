"""Why early exit helps or hurts on a trace: overthinking, the oracle, agreement and calibration of exits, rows lost.

Everything counts labelled rows of one trace; what has no meaning for a regression is None.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.criteria import Criterion, make
from pipeline.evaluation.criteria.base import log_probabilities
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""
EXAMPLES = 10
"""Row ids that a list of rows names at most."""


def diagnose(
    trace: Trace, metrics: tuple[str, ...], points: Mapping[str, tuple[Criterion, float]] | None = None
) -> dict[str, Any]:
    """All of it, as JSON with shares rounded to six places.

    Args:
        metrics: the task's, for the oracle's score.
        points: criteria at their thresholds, by the name to show.

    Returns:
        "rows"; "layers" of the exits; "overthinking" {"rows", "share"}; "oracle" {"score", "layer_speedup",
        "flop_speedup"}; "agreement" (exits x exits); "calibration" {"bins", "error" of each exit}; "criteria": per
        point {"criterion", "threshold", "exits", "lost", "won", "lost_rows", "won_rows"}.

    Raises:
        ArtifactError: a row has no label.
        InvalidLogitsError: a logit is NaN.
    """
    require_labels(trace)
    classes = trace.kind == "classification"
    best = sweep(trace, make("oracle"), np.array([1.0]))
    return {
        "rows": trace.rows,
        "layers": [_plain(layer) for layer in trace.layers],
        "overthinking": _among(overthought(trace)) if classes else None,
        "oracle": {
            "score": _plain(best.metrics(metrics)["score"][0]),
            "layer_speedup": _plain(best.layer_speedup[0]),
            "flop_speedup": _plain(best.flop_speedup[0]),
        },
        "agreement": [[_plain(share) for share in row] for row in agreement(trace)] if classes else None,
        "calibration": {"bins": BINS, "error": [_plain(e) for e in calibration_error(trace)]} if classes else None,
        "criteria": [
            {"criterion": name} | at_threshold(trace, criterion, threshold)
            for name, (criterion, threshold) in (points or {}).items()
        ],
    }


def require_labels(trace: Trace) -> None:
    """Raise ArtifactError where a row has no label."""
    unknown = int(np.isnan(trace.labels).sum())
    if unknown:
        raise ArtifactError(f"trace: {unknown} of {trace.rows} rows have no label; leave them out of the trace")


def overthought(trace: Trace) -> np.ndarray:
    """Rows that some exit gets right and the last gets wrong (Kaya et al. 2019, "destructive" overthinking), (n,)."""
    right = trace.answers() == trace.labels[:, None]
    return np.asarray(right.any(axis=1) & ~right[:, -1])


def agreement(trace: Trace) -> np.ndarray:
    """Share of rows that two exits answer alike, (exits, exits): symmetric, 1 on the diagonal."""
    answers = trace.answers()
    return np.stack([np.mean(answers == answers[:, [j]], axis=0) for j in range(trace.exits)])


def calibration_error(trace: Trace, bins: int = BINS) -> np.ndarray:
    """Expected calibration error of each exit, (exits,) (Naeini et al. 2015; Guo et al. 2017).

    ECE = sum_b |B_b| / n * |accuracy(B_b) - confidence(B_b)|, over `bins` bins ((b-1)/bins, b/bins] of the largest
    softmax probability.
    """
    errors = []
    for j in range(trace.exits):
        confidence = np.exp(np.max(log_probabilities(trace.logits[:, j]), axis=-1))
        right = np.argmax(trace.logits[:, j], axis=-1) == trace.labels
        index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        gaps = np.bincount(index, weights=right - confidence, minlength=bins)
        errors.append(np.sum(np.abs(gaps)) / trace.rows)
    return np.array(errors)


def at_threshold(trace: Trace, criterion: Criterion, threshold: float) -> dict[str, Any]:
    """Where rows leave under a criterion at a threshold, and which it loses and wins against the full model.

    Returns:
        "exits": rows that leave at each exit. "lost": rows it gets wrong and the full model right; "won" the reverse;
        "lost_rows" and "won_rows": ids of the first few. None for a regression.
    """
    swept = sweep(trace, criterion, np.array([threshold]))
    about = {
        "threshold": None if threshold == NEVER else float(threshold),
        "exits": [int(count) for count in swept.exit_counts[0]],
    }
    if trace.kind == "regression":
        return about | dict.fromkeys(("lost", "won", "lost_rows", "won_rows"))
    early, full = swept.predictions[0] == trace.labels, trace.answers()[:, -1] == trace.labels
    lost, won = _among(full & ~early), _among(early & ~full)
    return about | {
        "lost": lost,
        "won": won,
        "lost_rows": _some(trace, full & ~early),
        "won_rows": _some(trace, early & ~full),
    }


def _among(flags: np.ndarray) -> dict[str, Any]:
    return {"rows": int(flags.sum()), "share": _plain(flags.mean())}


def _some(trace: Trace, flags: np.ndarray) -> list[int]:
    return [int(row) for row in trace.row_ids[flags][:EXAMPLES]]


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
