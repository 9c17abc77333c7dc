"""Replay: every threshold of a criterion over a recorded trace, without the model.

One scan over the exits gives each row's score after each exit. A row leaves at its first crossing, so the running
maximum of its scores gives its exit for every threshold.

A row that goes past an exit at some threshold does so at every higher one. So one small number per row and exit stores
a whole sweep, and a sum over rows at each of k thresholds is one histogram. No array of k x n is needed.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UnsupportedError
from pipeline.evaluation.arrays import by_column, largest_class
from pipeline.evaluation.blocks import over_blocks
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.criteria.base import answers_itself, refuse_other_fit
from pipeline.evaluation.criteria.fitting import hard_labels
from pipeline.evaluation.metrics import COUNTED, METRICS
from pipeline.evaluation.trace import Trace
from pipeline.evaluation.trace_checks import refuse_nan

NEVER = np.inf
"""The threshold of the full model, which no score reaches."""
BLOCK = 4_000_000
"""Number of predictions per call of a metric."""


def scan(trace: Trace, criterion: Criterion) -> tuple[np.ndarray, np.ndarray]:
    """Run a criterion over all exits of all rows.

    Returns:
        Score of each row after each exit, (n, exits) float64, and the answer of a row that leaves there, (n, exits)
        float64: class index, or the real value.

    Raises:
        UnsupportedError: the criterion has no meaning for regression, or for hard labels.
        ArtifactError: the trace lacks the channel that the criterion reads, or the criterion is fitted to another
            shape.
        InvalidLogitsError: a logit, or a value of that channel, is NaN.
    """
    if trace.kind == "regression" and not criterion.regression:
        raise UnsupportedError(
            f"criterion {criterion.name!r} needs class probabilities and the trace is a regression; use patience"
        )
    if criterion.lacks_probabilities(trace):
        raise hard_labels(criterion.name)
    refuse_other_fit(criterion, trace.exits, trace.classes)
    answers = trace.answers()  # raises on NaN
    values = criterion.values(trace)
    if values is not trace.logits:
        refuse_nan(trace, f"values of channel {criterion.reads!r}", values, "write a number for each row and exit")
    changes = answers_itself(criterion)
    state = criterion.start(trace.rows, values[:, 0])
    columns = []
    for j in range(trace.exits):
        state, value = criterion.step(state, values[:, j])
        columns.append(value)
        if changes and j < trace.exits - 1:  # the last exit answers for itself
            logits = criterion.answer(state, trace.logits[:, j]).astype(np.float32)  # as the live engine returns it
            answers[:, j] = logits[:, 0] if trace.kind == "regression" else largest_class(logits)
    scores = np.stack(columns).T
    # NaN would cross every threshold.
    refuse_nan(trace, f"scores of criterion {criterion.name!r}", scores, "mend its step, or give other settings")
    return scores, answers


@dataclass(frozen=True)
class Sweep:
    """One criterion over k thresholds on one trace of n rows.

    Attributes:
        kind: of the trace, classification or regression.
        thresholds: (k,), ascending.
        past: index of the first threshold at which a row goes past each exit but the last, (n, exits - 1).
        answers: answer of each row that leaves at each exit, (n, exits): class index or real value.
        labels: (n,).
        exit_counts: rows that leave at each exit, (k, exits).
        layer_speedup: (k,), layers of the plain model / mean layers run.
        flop_speedup: (k,), FLOPs of the plain model / FLOPs spent, embedding and heads included.
        measured: what a chooser measures of each row's answer at each exit, (n, exits); None: nothing.
    """

    kind: str
    thresholds: np.ndarray
    past: np.ndarray
    answers: np.ndarray
    labels: np.ndarray
    exit_counts: np.ndarray
    layer_speedup: np.ndarray
    flop_speedup: np.ndarray
    measured: np.ndarray | None = None

    @property
    def exit_index(self) -> np.ndarray:
        """Exit of each row at each threshold, (k, n), 0-based; computed at each call."""
        return exits_at(self.past, np.arange(len(self.thresholds)))

    def exits_at(self, threshold: int) -> np.ndarray:
        """Exit of each row at the threshold of an index, (n,), 0-based."""
        return np.asarray(exits_at(self.past, np.array([threshold]))[0])

    @property
    def predictions(self) -> np.ndarray:
        """Prediction of each row at each threshold, (k, n) float64; computed at each call."""
        return self._predictions(np.arange(len(self.thresholds)))

    def _predictions(self, at: np.ndarray) -> np.ndarray:
        predictions: np.ndarray = self.answers[np.arange(len(self.answers)), exits_at(self.past, at)]
        return predictions.astype(np.float64)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over rows of `values` (n, exits) at the exit where each row leaves, (k,)."""
        k = len(self.thresholds)
        parts = over_blocks(lambda rows: totals(self.past[rows], values[rows], k), len(self.past))
        return sum(parts, start=np.zeros(k))

    def metrics(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Each named metric, (k,), and their mean under "score"."""
        values = {name: self._metric(name) for name in names}
        return values | {"score": np.asarray(np.mean(list(values.values()), axis=0))}

    def _metric(self, name: str) -> np.ndarray:
        if np.isnan(self.labels).any():  # rows without labels have no score
            return np.full(len(self.thresholds), np.nan)
        if name in COUNTED:
            return COUNTED[name](self.answers.T, self.labels, lambda flags: self.total(flags.T))
        step = max(1, BLOCK // len(self.labels))  # bounds the memory
        every = np.arange(len(self.thresholds))
        blocks = [every[i : i + step] for i in range(0, len(every), step)]
        return np.concatenate([METRICS[name](self._predictions(at), self.labels) for at in blocks])


def sweep(trace: Trace, criterion: Criterion, thresholds: np.ndarray | None = None) -> Sweep:
    """Replay a criterion at many thresholds; by default at the criterion's own and at never.

    Rows are processed in blocks, so that only the result (two bytes per row and exit) grows with n.
    """
    if thresholds is None:
        thresholds = np.append(criterion.thresholds(trace.exits, trace.classes), NEVER)
    thresholds = np.sort(np.asarray(thresholds, dtype=np.float64))
    k = len(thresholds)
    small = np.float64 if trace.kind == "regression" else np.min_scalar_type(trace.classes)
    past = np.empty((trace.rows, trace.exits - 1), dtype=np.min_scalar_type(k), order="F")
    answers = np.empty((trace.rows, trace.exits), dtype=small, order="F")

    def replay(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        scores, answers[rows] = scan(_by_column(some_rows(trace, rows)), criterion)
        past[rows] = first_past(scores, thresholds)
        return totals(past[rows], trace.flops[rows], k), exit_counts(past[rows], k)

    parts = over_blocks(replay, trace.rows)
    flops = sum((part[0] for part in parts), start=np.zeros(k))
    counts = sum((part[1] for part in parts), start=np.zeros((k, trace.exits), dtype=np.int64))
    return Sweep(
        kind=trace.kind,
        thresholds=thresholds,
        past=past,
        answers=answers,
        labels=trace.labels,
        exit_counts=counts,
        layer_speedup=trace.all_layers / (np.sum(counts * trace.layers, axis=1) / trace.rows),
        flop_speedup=np.sum(trace.full_flops) / flops,
    )


def some_rows(trace: Trace, rows: slice) -> Trace:
    """Some rows of a trace, as views."""
    per_row = ("logits", "labels", "row_ids", "flops", "full_flops", "last_flops")
    values = {name: getattr(trace, name) for name in per_row}
    parts = {name: whole[rows] for name, whole in values.items() if whole is not None}
    return _part(trace, **parts, channels={name: whole[rows] for name, whole in trace.channels.items()})


def _by_column(block: Trace) -> Trace:
    """The same rows, with logits and channels in the memory order in which NumPy is fast."""
    channels = {name: by_column(values) for name, values in block.channels.items()}
    return _part(block, logits=by_column(block.logits), channels=channels)


def _part(trace: Trace, **changes: Any) -> Trace:
    """The trace with other arrays, of the same rows or fewer; not checked again, which would take as long as a scan."""
    part = copy(trace)
    vars(part).update(changes)
    return part


def first_past(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Index of the first threshold at which each row goes past each exit but the last; k where none does.

    Args:
        scores: after each exit, (n, exits).
        thresholds: ascending, (k,).

    Returns:
        (n, exits - 1), in the smallest unsigned type that holds k.
    """
    past = np.empty((len(scores), scores.shape[1] - 1), dtype=np.min_scalar_type(len(thresholds)), order="F")
    reached = scores[:, 0]
    for j in range(past.shape[1]):
        reached = np.maximum(reached, scores[:, j])
        past[:, j] = np.searchsorted(thresholds, reached, side="right")
    return past


def exits_at(past: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Exit that answers each row, 0-based, at the thresholds of indices `at`: (n, exits - 1), (m,) to (m, n)."""
    # Signed, so that differences are right.
    out = np.zeros((len(at), len(past)), dtype=np.int8 if past.shape[1] < 128 else np.int32)
    for column in past.T:
        out += column <= at[:, None]
    return out


def exit_counts(past: np.ndarray, k: int) -> np.ndarray:
    """Rows that leave at each exit at each of k thresholds, (n, exits - 1) to (k, exits) int64."""
    n, early = past.shape
    gone = np.zeros((k, early + 2), dtype=np.int64)
    gone[:, 0] = n
    for j in range(early):
        gone[:, j + 1] = np.cumsum(np.bincount(past[:, j], minlength=k + 1)[:k])
    return gone[:, :-1] - gone[:, 1:]


def totals(past: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    """Sum over rows of each row's value at the exit that answers it, at each of k thresholds.

    Exact where the sums are whole numbers below 2**53.

    Args:
        values: at each exit, (n, exits); boolean or float.

    Returns:
        (k,) float64.
    """
    if values.dtype == np.bool_:
        flags = values.T
        moved = np.flatnonzero(flags[1:] != flags[:-1])  # few, since neighbouring exits mostly agree
        index, weights = past.T.ravel()[moved], np.where(flags[1:].ravel()[moved], 1, -1)
    else:
        index, weights = past.ravel(), np.diff(values, axis=1).ravel()
    steps = np.bincount(index, weights=weights, minlength=k + 1)[:k]
    return np.asarray(np.sum(values[:, 0], dtype=np.float64) + np.cumsum(steps))
