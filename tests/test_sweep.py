"""A sweep against the plain way to compute it: every threshold, row by row, with arrays of settings x rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import sweep as replay
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.metrics import METRICS, score
from pipeline.evaluation.sweep import (
    NEVER,
    Sweep,
    criterion_scores,
    exit_counts,
    exits_at,
    first_past,
    scan,
    sweep,
    totals,
)
from pipeline.evaluation.trace import Trace


def trace_of(kind: str, classes: int, rows: int, exits: int, seed: int) -> Trace:
    """Rounded answers, so that ties and repeats happen, with costs that are whole numbers as FLOPs are."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 6, rows) if kind == "regression" else generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, exits, classes)).round(1)
    logits[:, :, 0] += labels[:, None] if kind == "regression" else 0
    flops = np.cumsum(generator.integers(1, 10**9, size=(rows, exits)), axis=1).astype(np.float64)
    return Trace(
        kind, logits.astype(np.float32), labels.astype(np.float64), np.arange(rows),
        np.arange(1.0, exits + 1), flops, flops[:, -1] + 7,
        channels={"lte": generator.random((rows, exits)).astype(np.float32)},
    )  # fmt: skip


def plainly(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The first exit whose score reaches each threshold, else the last, by its definition."""
    out = np.empty((len(thresholds), len(scores)), dtype=np.int64)
    for i, t in enumerate(thresholds):
        for row, values in enumerate(scores):
            out[i, row] = next((j for j, value in enumerate(values) if value >= t), scores.shape[1] - 1)
    return out


def assert_as_plainly(trace: Trace, name: str, found: Sweep, metrics: tuple[str, ...]) -> None:
    scores, answers = scan(trace, make(name))
    index = plainly(scores, found.thresholds)
    rows = np.arange(trace.rows)
    predictions = answers[rows, index]
    np.testing.assert_array_equal(found.exit_index, index)
    np.testing.assert_array_equal(found.predictions, predictions)
    np.testing.assert_array_equal(found.exit_counts, [np.bincount(i, minlength=trace.exits) for i in index])
    np.testing.assert_array_equal(found.layer_speedup, trace.layers[-1] / np.mean(trace.layers[index], axis=1))
    np.testing.assert_array_equal(found.flop_speedup, trace.full_flops.sum() / trace.flops[rows, index].sum(axis=1))
    values = found.metrics(metrics)
    for metric in metrics:
        np.testing.assert_array_equal(values[metric], METRICS[metric](predictions, trace.labels), err_msg=metric)
    np.testing.assert_array_equal(values["score"], score(metrics, predictions, trace.labels))


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize(("rows", "exits"), [(1, 1), (37, 1), (50, 7)])
@pytest.mark.parametrize("block", [8, 10**6])
def test_classification(monkeypatch: pytest.MonkeyPatch, name: str, rows: int, exits: int, block: int) -> None:
    monkeypatch.setattr(replay, "ROWS", block)
    trace = trace_of("classification", 2, rows, exits, seed=rows + exits)
    assert_as_plainly(trace, name, sweep(trace, make(name)), ("accuracy", "f1", "matthews"))


@pytest.mark.parametrize("name", [name for name, cls in CRITERIA.items() if cls.regression])
@pytest.mark.parametrize("block", [8, 10**6])
def test_regression(monkeypatch: pytest.MonkeyPatch, name: str, block: int) -> None:
    monkeypatch.setattr(replay, "ROWS", block)
    monkeypatch.setattr(replay, "BLOCK", 10 * block)
    trace = trace_of("regression", 1, 50, 7, seed=3)
    assert_as_plainly(trace, name, sweep(trace, make(name)), ("pearson", "spearman"))


def test_many_thresholds_and_those_that_scores_hit_exactly() -> None:
    trace = trace_of("classification", 3, 60, 5, seed=9)
    exactly = criterion_scores(trace, make("confidence")).ravel()
    found = sweep(trace, make("confidence"), np.concatenate([exactly, np.nextafter(exactly, 2), [NEVER, -NEVER]]))
    assert len(found.thresholds) == 602  # more than fit in a byte
    assert_as_plainly(trace, "confidence", found, ("accuracy",))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30), exits=st.integers(1, 6), k=st.integers(1, 9))
def test_crossings(seed: int, n: int, exits: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    scores, thresholds = generator.integers(0, 5, (n, exits)).astype(float), np.sort(generator.integers(-1, 6, k))
    past = first_past(scores, thresholds.astype(float))
    index = plainly(scores, thresholds)
    np.testing.assert_array_equal(exits_at(past, np.arange(k)), index)
    np.testing.assert_array_equal(exit_counts(past, k), [np.bincount(i, minlength=exits) for i in index])
    for values in (generator.random((n, exits)) < 0.5, generator.integers(0, 99, (n, exits)).astype(float)):
        np.testing.assert_array_equal(totals(past, values, k), values[np.arange(n), index].sum(axis=1))


def test_exits_are_signed_so_that_differences_are_right() -> None:
    past = first_past(np.zeros((2, 200)), np.array([1.0]))
    assert np.diff(exits_at(past, np.array([0, 0])), axis=0).min() == 0
    assert exits_at(past, np.array([0])).min() == 199
    assert exits_at(past[:, :100], np.array([0])).dtype == np.int8
