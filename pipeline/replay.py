"""Replay: every threshold of a criterion over a recorded trace, without the model.

One scan over the exits gives each row's score after each exit; because a row leaves at its first crossing, the exit
for any threshold is a count over the running maximum of those scores.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.criteria import Criterion
from pipeline.criteria.base import answers_itself
from pipeline.errors import UnsupportedError
from pipeline.metrics import METRICS, score
from pipeline.traces import Trace

NEVER = np.inf
"""The threshold of the full model: no score reaches it."""


def scan(trace: Trace, criterion: Criterion) -> tuple[np.ndarray, np.ndarray]:
    """Take a criterion through all exits of all rows.

    Returns:
        Score of each row after each exit, (n, exits) float64, and what a row that leaves there is answered with,
        (n, exits) float64: class index, or the real value.

    Raises:
        UnsupportedError: the criterion has no meaning for regression.
        ArtifactError: the trace lacks the channel that the criterion reads.
        InvalidLogitsError: a logit, or a value of that channel, is NaN.
    """
    if trace.kind == "regression" and not criterion.regression:
        raise UnsupportedError(
            f"criterion {criterion.name!r} needs class probabilities and the trace is a regression; use patience"
        )
    answers = trace.answers()  # refuses NaN
    values = criterion.values(trace)
    if values is not trace.logits:
        trace.refuse_nan(f"values of channel {criterion.reads!r}", values)
    changes = answers_itself(criterion)
    state = criterion.start(trace.rows, values[:, 0])
    columns = []
    for j in range(trace.exits):
        state, value = criterion.step(state, values[:, j])
        columns.append(value)
        if changes and j < trace.exits - 1:  # the last exit answers for itself
            given = criterion.answer(state, trace.logits[:, j]).astype(np.float32)  # as the live engine hands it out
            answers[:, j] = given[:, 0] if trace.kind == "regression" else np.argmax(given, axis=-1)
    scores = np.stack(columns, axis=1)
    trace.refuse_nan(f"scores of criterion {criterion.name!r}", scores)  # NaN would cross every threshold
    return scores, answers


def criterion_scores(trace: Trace, criterion: Criterion) -> np.ndarray:
    """Score of each row after each exit, (n, exits) float64. Raises as `scan` does."""
    return scan(trace, criterion)[0]


def exit_indices(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """First exit whose score reaches each threshold, else the last: (n, exits), (k,) to (k, n) 0-based indices."""
    reached = np.maximum.accumulate(scores, axis=1)
    last = scores.shape[1] - 1
    out = np.zeros((len(thresholds), len(scores)), dtype=np.int64)
    for j in range(last):  # the last exit answers whatever is left, crossed or not
        out += reached[:, j] < np.asarray(thresholds)[:, None]
    return out


@dataclass(frozen=True)
class Sweep:
    """One criterion over k thresholds on one trace. All arrays have first axis k.

    Attributes:
        thresholds: (k,), ascending.
        exit_index: (k, n), 0-based.
        predictions: (k, n), class index or real value.
        layer_speedup: (k,), all layers / mean layers run.
        flop_speedup: (k,), FLOPs of the plain model / FLOPs spent, embedding and heads included.
    """

    thresholds: np.ndarray
    exit_index: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray
    layer_speedup: np.ndarray
    flop_speedup: np.ndarray

    def metrics(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Each named metric, (k,), and their mean under "score"."""
        values = {name: METRICS[name](self.predictions, self.labels) for name in names}
        return values | {"score": score(names, self.predictions, self.labels)}


def sweep(trace: Trace, criterion: Criterion, thresholds: np.ndarray | None = None) -> Sweep:
    """Replay a criterion at many thresholds; without `thresholds`, at the criterion's own sweep and at never."""
    if thresholds is None:
        thresholds = np.append(criterion.thresholds(trace.exits, trace.classes), NEVER)
    thresholds = np.sort(np.asarray(thresholds, dtype=np.float64))
    scores, answers = scan(trace, criterion)
    index = exit_indices(scores, thresholds)
    rows = np.arange(trace.rows)
    return Sweep(
        thresholds=thresholds,
        exit_index=index,
        predictions=answers[rows, index],
        labels=trace.labels,
        layer_speedup=trace.layers[-1] / np.mean(trace.layers[index], axis=1),
        flop_speedup=np.sum(trace.full_flops) / np.sum(trace.flops[rows, index], axis=1),
    )
