"""A sweep against the plain way to compute it: every threshold, row by row, with arrays of settings x rows."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier, Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InvalidLogitsError
from pipeline.evaluation import blocks
from pipeline.evaluation import sweep as replay
from pipeline.evaluation.arrays import largest_class
from pipeline.evaluation.blocks import over_blocks, set_threads
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.metrics import METRICS, score
from pipeline.evaluation.sweep import (
    NEVER,
    Sweep,
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
    monkeypatch.setattr(blocks, "ROWS", block)
    trace = trace_of("classification", 2, rows, exits, seed=rows + exits)
    assert_as_plainly(trace, name, sweep(trace, make(name)), ("accuracy", "f1", "macro_f1", "matthews"))


@pytest.mark.parametrize("classes", [3, 12])
@pytest.mark.parametrize("block", [8, 10**6])
def test_metrics_of_several_classes(monkeypatch: pytest.MonkeyPatch, classes: int, block: int) -> None:
    monkeypatch.setattr(blocks, "ROWS", block)
    trace = trace_of("classification", classes, 50, 7, seed=classes)
    assert_as_plainly(trace, "confidence", sweep(trace, make("confidence")), ("accuracy", "macro_f1", "matthews"))


@pytest.mark.parametrize("name", [name for name, cls in CRITERIA.items() if cls.regression])
@pytest.mark.parametrize("block", [8, 10**6])
def test_regression(monkeypatch: pytest.MonkeyPatch, name: str, block: int) -> None:
    monkeypatch.setattr(blocks, "ROWS", block)
    monkeypatch.setattr(replay, "BLOCK", 10 * block)
    trace = trace_of("regression", 1, 50, 7, seed=3)
    assert_as_plainly(trace, name, sweep(trace, make(name)), ("pearson", "spearman"))


def test_many_thresholds_and_those_that_scores_hit_exactly() -> None:
    trace = trace_of("classification", 3, 60, 5, seed=9)
    exactly = scan(trace, make("confidence"))[0].ravel()
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


# Neither threads nor the order of memory move a bit


@pytest.fixture
def two_threads() -> Iterator[None]:
    set_threads(2)
    yield
    set_threads(1)


@pytest.mark.usefixtures("two_threads")
def test_results_of_blocks_come_in_the_order_of_rows_whichever_is_done_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ROWS", 10)
    side_by_side, second_done = Barrier(2, timeout=60), Event()

    def work(block: slice) -> int:
        if block.start < 20:
            side_by_side.wait()
        if block.start == 0:
            assert second_done.wait(timeout=60)
        if block.start == 10:
            second_done.set()
        return int(block.start)

    assert over_blocks(work, 45) == [0, 10, 20, 30, 40]


@pytest.mark.usefixtures("two_threads")
def test_the_first_block_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ROWS", 10)
    side_by_side = Barrier(2, timeout=60)

    def fail(block: slice) -> None:
        side_by_side.wait()
        raise ValueError(f"row {block.start}")

    with pytest.raises(ValueError, match="row 0"):
        over_blocks(fail, 20)


@pytest.mark.parametrize("name", CRITERIA)
def test_any_number_of_threads_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, two_threads: None, name: str
) -> None:
    monkeypatch.setattr(blocks, "ROWS", 64)
    trace = trace_of("classification", 3, 1000, 7, seed=4)
    trace = replace(trace, flops=trace.flops / 3)  # sums that round show their order
    trace.logits[70, 2, 1] = np.inf  # a threshold that no thread may warn of where the caller silences NumPy
    results = []
    for count in (1, 2, 3):
        set_threads(count)
        with np.errstate(invalid="ignore"):
            try:
                swept = sweep(trace, make(name))
            except InvalidLogitsError as error:
                results.append([str(error).encode()])
            else:
                arrays = (swept.past, swept.answers, swept.exit_counts, swept.layer_speedup, swept.flop_speedup)
                results.append([a.tobytes() for a in (*arrays, *swept.metrics(("accuracy",)).values())])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("classes", [2, 3, 7, 8, 9, 20])
@pytest.mark.parametrize("name", [name for name, cls in CRITERIA.items() if cls.reads == "logits"])
def test_replay_adds_up_classes_as_the_live_engine_does(name: str, classes: int) -> None:
    """Scores to the last bit: each is itself a threshold, which the row reaches in replay too."""
    trace = trace_of("classification", classes, 500, 4, seed=classes)
    noise = np.random.default_rng(classes).normal(size=trace.logits.shape).astype(np.float32)
    trace, criterion = replace(trace, logits=noise), make(name)
    state, scores = criterion.start(trace.rows, noise[:, 0]), np.empty((trace.rows, trace.exits))
    for j in range(trace.exits):
        state, scores[:, j] = criterion.step(state, np.ascontiguousarray(noise[:, j]))
    thresholds = np.unique(scores)
    np.testing.assert_array_equal(sweep(trace, criterion, thresholds).past, first_past(scores, thresholds))


@pytest.mark.parametrize("classes", [2, 3, 7, 8, 20])
@pytest.mark.parametrize("rows", [1, 40, 400])
def test_the_largest_class_is_the_first_of_equals(rows: int, classes: int) -> None:
    import torch

    generator = np.random.default_rng(classes)
    logits = generator.normal(size=(rows, 5, classes)).round(0).astype(np.float32)
    logits[generator.random(logits.shape) < 0.1] = -np.inf
    logits[generator.random(logits.shape) < 0.1] = np.inf
    expected = np.argmax(logits, axis=-1)
    for values in (logits, np.asfortranarray(logits), logits[::-1][::-1], torch.from_numpy(logits)):
        np.testing.assert_array_equal(largest_class(values), expected)
        np.testing.assert_array_equal(largest_class(values[:, 2]), expected[:, 2])
