"""Risks of leaving early: a loss of each row at each exit, and tests that the mean loss is bounded."""

from collections.abc import Callable

import numpy as np

from pipeline.errors import ArtifactError, UnsupportedError
from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.criteria.base import answers_itself, log_probabilities
from pipeline.evaluation.sweep import Sweep
from pipeline.evaluation.trace import Trace

GRADED = ("brier", "brier_consistency", "error")
"""Losses between 0 and 1, or -1 and 1, rather than 0 or 1."""
OF_PROBABILITIES = ("brier", "brier_consistency")
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Logits of the answer (n, classes), those of the full model, and labels (n,), to a number per row (n,)."""


def losses(swept: Sweep, loss: str, tolerance: float = 0.0) -> np.ndarray:
    """Loss of each row that leaves at each exit, (n, exits) float64; `Risk` says what each means.

    Raises:
        ArtifactError: a row lacks the label that the loss needs.
    """
    if swept.measured is not None:
        return swept.measured
    if loss == "error":
        _require_labels(swept.labels, loss)
        grown = _grown(swept.answers, swept.labels[:, None])
        return np.asarray(np.clip(grown / tolerance, -1.0, 1.0))
    return lost(swept, loss, tolerance).astype(np.float64)


def lost(swept: Sweep, loss: str, tolerance: float = 0.0) -> np.ndarray:
    """Whether each row, leaving at each exit, is lost against the full model, (n, exits) boolean; see `Risk`.

    Raises:
        ArtifactError: loss "gap" and a row without a label.
    """
    full = swept.answers[:, -1:]
    labels = swept.labels[:, None]
    if loss == "gap":
        _require_labels(swept.labels, loss)
    if swept.kind == "regression":
        away = np.abs(swept.answers - full) if loss == "consistency" else _grown(swept.answers, labels)
        return np.asarray(away > tolerance)
    return np.asarray(swept.answers != full if loss == "consistency" else (swept.answers != labels) & (full == labels))


def _require_labels(labels: np.ndarray, loss: str) -> None:
    unknown = int(np.isnan(labels).sum())
    if unknown:
        instead = "brier_consistency" if loss == "brier" else "consistency"
        raise ArtifactError(
            f"trace: {unknown} rows have no label, and the loss {loss!r} needs all; use loss: {instead}"
        )


def _grown(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    error = np.abs(answers - labels)
    return np.asarray(error - error[:, -1:])


def measured(trace: Trace, criterion: Criterion, measure: Measure) -> np.ndarray:
    """A measure of the distribution with which each row answers at each exit, (n, exits) float64."""
    values, changes = criterion.values(trace), answers_itself(criterion)
    state = criterion.start(trace.rows, values[:, 0])
    columns = []
    for j in range(trace.exits):
        state, _ = criterion.step(state, values[:, j])
        own = changes and j < trace.exits - 1  # the last exit answers for itself
        logits = criterion.answer(state, trace.logits[:, j]) if own else trace.logits[:, j]
        columns.append(measure(logits, trace.logits[:, -1], trace.labels))
    return np.stack(columns, axis=1)


def measure_of(loss: str, trace: Trace) -> Measure:
    """The measure of a loss of probabilities.

    Raises:
        UnsupportedError: the trace has no probabilities.
        ArtifactError: a row lacks the label that the loss needs.
    """
    refuse_without_probabilities(trace, f"loss {loss!r}", "loss: gap")
    if loss == "brier":
        _require_labels(trace.labels, loss)
        return _brier_gap
    return _brier_distance


def refuse_without_probabilities(trace: Trace, what: str, instead: str) -> None:
    """Raise UnsupportedError where a trace has no class probabilities."""
    if trace.kind == "regression" or trace.hard:
        holds = "is a regression" if trace.kind == "regression" else "holds hard labels"
        raise UnsupportedError(f"{what} needs class probabilities and the trace {holds}; use {instead}")


def _brier_gap(logits: np.ndarray, full: np.ndarray, labels: np.ndarray) -> np.ndarray:
    truth = np.eye(logits.shape[1])[labels.astype(np.int64)]
    return np.asarray(_half_square(_p(logits) - truth) - _half_square(_p(full) - truth))


def _brier_distance(logits: np.ndarray, full: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return _half_square(_p(logits) - _p(full))


def certainty(logits: np.ndarray, full: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The largest probability of an answer."""
    return np.asarray(np.max(_p(logits), axis=1))


def _p(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_probabilities(logits)))


def _half_square(difference: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * np.sum(difference**2, axis=1))


# Bounds on a mean loss


def first_by_counting(loss: np.ndarray, swept: Sweep, epsilon: float, delta: float) -> int:
    """Index of the loosest threshold of the successes at the strict end; the number of thresholds where there is none.

    A success is P[Bin(n, epsilon) <= losses] <= delta, the exact binomial test of losses of 0 or 1.
    """
    from scipy.special import bdtr  # the binomial distribution function

    failed = np.flatnonzero(bdtr(np.rint(swept.total(loss)), len(loss), epsilon) > delta)
    return int(failed[-1]) + 1 if len(failed) else 0


def first_by_betting(loss: np.ndarray, swept: Sweep, epsilon: float, delta: float) -> int:
    """The same by `betting_holds`, for any losses of at most 1."""
    rows, first = np.arange(len(loss)), len(swept.thresholds)
    while first and betting_holds(loss[rows, swept.exits_at(first - 1)], epsilon, delta):
        first -= 1
    return first


def betting_holds(loss: np.ndarray, epsilon: float, delta: float) -> bool:
    """Whether a bet against "the mean loss is above epsilon" has multiplied its stake by 1 / delta (Waudby-Smith and
    Ramdas 2024, with the bets that Bates et al. 2021 take).

        K_t = prod_{i<=t} (1 - nu_i (L_i - epsilon));  nu_i = min(1, sqrt(2 ln(1/delta) / (n s_{i-1}^2)))
        m_i = (1/2 + sum_{j<=i} L_j) / (1 + i);  s_i^2 = (1/4 + sum_{j<=i} (L_j - m_j)^2) / (1 + i)

    If the mean is above epsilon, K is a supermartingale that starts at 1, and reaches 1 / delta with probability delta
    at most (Ville). Losses are at most 1; they may be negative, since K stays positive then too. The rows are taken in
    a random order of a fixed seed: a data set may begin with its easy rows, and the bet may be won by then.
    """
    n = len(loss)
    if n == 0:
        return False
    loss = loss[np.random.default_rng(0).permutation(n)]
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(loss)) / (1 + count)
    variance = (0.25 + np.cumsum((loss - mean) ** 2)) / (1 + count)
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.minimum(1.0, np.sqrt(2 * np.log(1 / delta) / (n * before)))
    gained = np.cumsum(np.log1p(-bets * (loss - epsilon)))
    return bool(gained.max() >= np.log(1 / delta))


def monotone(loss: np.ndarray) -> np.ndarray:
    """The smallest losses above these, (n, exits), that do not fall from the last exit towards the first."""
    return np.asarray(np.maximum.accumulate(loss[:, ::-1], axis=1)[:, ::-1])


def first_controlled(loss: np.ndarray, swept: Sweep, epsilon: float) -> int:
    """Index of the loosest threshold at which conformal risk control bounds the expected loss; the number of thresholds
    where none does (Angelopoulos et al. 2024).

    (n R + 1) / (n + 1) <= epsilon, where R is the mean over n rows of a loss of at most 1 that never falls as the
    threshold falls. Losses that do are raised to the smallest that do not, which only makes the bound more careful.
    """
    n = len(loss)
    bounded = (swept.total(monotone(loss)) + 1) / (n + 1) <= epsilon
    failed = np.flatnonzero(~bounded)
    return int(failed[-1]) + 1 if len(failed) else 0
