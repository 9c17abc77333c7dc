"""The laws of an exit criterion, over one case table; hand-made answers; live equals replay."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import theory
from pipeline.criteria import CRITERIA, Criterion, make
from pipeline.errors import InvalidLogitsError, ParamsError, UnsupportedError
from pipeline.replay import NEVER, criterion_scores, exit_indices, sweep
from pipeline.traces import Trace


@dataclass(frozen=True)
class Case:
    criterion: Criterion
    regression: bool


CASES = [Case(make(name), regression=False) for name in CRITERIA] + [
    Case(make(name), regression=True) for name, cls in CRITERIA.items() if cls.regression
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.criterion.name}-{'r' if c.regression else 'c'}")


def trace_of(logits: np.ndarray, labels: np.ndarray | None = None) -> Trace:
    n, exits, classes = logits.shape
    return Trace(
        kind="regression" if classes == 1 else "classification",
        logits=logits.astype(np.float32),
        labels=np.zeros(n) if labels is None else labels,
        row_ids=np.arange(n),
        layers=np.arange(1.0, exits + 1),
        flops=np.tile(np.arange(1.0, exits + 1), (n, 1)),
        full_flops=np.full(n, float(exits)),
    )


def random_trace(case: Case, seed: int, rows: int = 40, exits: int = 7) -> Trace:
    classes = 1 if case.regression else 3
    # Rounded, so that ties and exact repeats happen.
    return trace_of(np.random.default_rng(seed).normal(size=(rows, exits, classes)).round(1))


seeds = st.integers(0, 2**32 - 1)


@each_case
@settings(max_examples=25, deadline=None)
@given(seed=seeds, exit_index=st.integers(0, 5))
def test_never_peeks_past_its_exit(case: Case, seed: int, exit_index: int) -> None:
    trace = random_trace(case, seed)
    changed = trace.logits.copy()
    changed[:, exit_index + 1 :] = np.random.default_rng(seed + 1).normal(size=changed[:, exit_index + 1 :].shape)
    before = criterion_scores(trace, case.criterion)[:, : exit_index + 1]
    after = criterion_scores(trace_of(changed), case.criterion)[:, : exit_index + 1]
    np.testing.assert_array_equal(before, after)


@each_case
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_a_higher_threshold_never_exits_earlier(case: Case, seed: int) -> None:
    trace = random_trace(case, seed)
    swept = sweep(trace, case.criterion)
    assert (np.diff(swept.thresholds) > 0).all()
    assert (np.diff(swept.exit_index, axis=0) >= 0).all()
    assert (np.diff(swept.layer_speedup) <= 1e-12).all()


@each_case
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_the_top_threshold_is_the_full_model(case: Case, seed: int) -> None:
    trace = random_trace(case, seed)
    top = sweep(trace, case.criterion, np.array([NEVER]))
    assert (top.exit_index == trace.exits - 1).all()
    np.testing.assert_array_equal(top.predictions[0], trace.answers()[:, -1])
    assert top.layer_speedup[0] == 1.0


@each_case
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_rows_do_not_influence_each_other(case: Case, seed: int) -> None:
    trace = random_trace(case, seed)
    together = criterion_scores(trace, case.criterion)
    order = np.random.default_rng(seed).permutation(trace.rows)
    np.testing.assert_array_equal(criterion_scores(trace_of(trace.logits[order]), case.criterion), together[order])
    alone = [criterion_scores(trace_of(trace.logits[i : i + 1]), case.criterion)[0] for i in range(5)]
    np.testing.assert_array_equal(np.stack(alone), together[:5])


@each_case
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_torch_and_numpy_take_the_same_exits(case: Case, seed: int) -> None:
    import torch

    trace = random_trace(case, seed)
    state = case.criterion.start(trace.rows, torch.from_numpy(trace.logits[:, 0]))
    columns = []
    for j in range(trace.exits):
        state, score = case.criterion.step(state, torch.from_numpy(trace.logits[:, j]))
        columns.append(score.numpy())
    np.testing.assert_allclose(
        np.stack(columns, axis=1), criterion_scores(trace, case.criterion), rtol=1e-12, atol=1e-12
    )


@each_case
def test_nan_is_a_named_error(case: Case) -> None:
    logits = random_trace(case, 0).logits.copy()
    logits[3, 2] = np.nan
    with pytest.raises(InvalidLogitsError, match="row 3 are NaN at exit 3"):
        sweep(trace_of(logits), case.criterion)


def one_hot(classes: list[list[int]]) -> np.ndarray:
    return np.eye(3)[np.array(classes)] * 5


def test_patience_by_hand() -> None:
    trace = trace_of(one_hot([[0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1], [2, 2, 2, 2, 2, 0]]))
    scores = criterion_scores(trace, make("patience"))
    np.testing.assert_array_equal(scores, [[0, 1, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 0]])
    exits = exit_indices(scores, np.array([0.0, 1, 2, 4, 9]))
    np.testing.assert_array_equal(exits.T, [[0, 1, 4, 5, 5], [0, 5, 5, 5, 5], [0, 1, 2, 4, 5]])


def test_patience_leaves_at_layer_t_plus_1_at_the_earliest() -> None:
    trace = trace_of(one_hot([[1] * 12]))
    assert sweep(trace, make("patience"), np.array([6.0])).layer_speedup[0] == 12 / 7


def test_regression_patience_takes_the_absolute_difference() -> None:
    falling = np.array([[[3.0], [1.0], [0.9], [0.95], [4.0]]])
    scores = criterion_scores(trace_of(falling), make("patience", {"tau": 0.5}))
    np.testing.assert_array_equal(scores, [[0, 0, 1, 2, 0]])


def test_confidence_and_entropy_by_hand() -> None:
    p = np.array([0.7, 0.2, 0.1])
    trace = trace_of(np.log(p)[None, None, :] + 3.0)
    np.testing.assert_allclose(criterion_scores(trace, make("confidence")), [[0.7]], rtol=1e-6)
    np.testing.assert_allclose(criterion_scores(trace, make("entropy")), [[np.sum(p * np.log(p))]], rtol=1e-6)


def test_entropy_at_its_lowest_threshold_leaves_at_once() -> None:
    swept = sweep(trace_of(np.zeros((4, 5, 3))), make("entropy"))
    assert swept.exit_index[0].max() == 0


def test_huge_logits_are_certain_and_not_nan() -> None:
    trace = trace_of(np.array([[[1e30, -1e30, 0.0]]]))
    assert criterion_scores(trace, make("confidence"))[0, 0] == 1.0
    assert criterion_scores(trace, make("entropy"))[0, 0] == 0.0


def test_classification_rules_refuse_regression() -> None:
    trace = trace_of(np.zeros((2, 3, 1)))
    for name in ("confidence", "entropy"):
        with pytest.raises(UnsupportedError, match="use patience"):
            sweep(trace, make(name))


def test_unknown_names_are_answered() -> None:
    with pytest.raises(ParamsError, match="did you mean 'patience'"):
        make("patince")
    with pytest.raises(ParamsError, match="unknown setting of patience 'tua'; did you mean 'tau'"):
        make("patience", {"tua": 0.5})


@pytest.mark.parametrize("t", [0, 1, 3, 6, 11])
def test_replay_agrees_with_the_exact_probability(t: int) -> None:
    """Sampled binary traces with independent answers against the dynamic programme."""
    generator = np.random.default_rng(t)
    accuracies = np.linspace(0.6, 0.9, 12)
    n = 20_000
    right = generator.random((n, 12)) < accuracies
    labels = generator.integers(0, 2, n)
    answers = np.where(right, labels[:, None], 1 - labels[:, None])
    swept = sweep(trace_of(np.eye(2)[answers], labels.astype(float)), make("patience"), np.array([float(t)]))
    accuracy, layers = theory.exact(accuracies, t)
    assert swept.metrics(("accuracy",))["accuracy"][0] == pytest.approx(float(accuracy), abs=4 * 0.5 / np.sqrt(n))
    assert 12 / swept.layer_speedup[0] == pytest.approx(float(layers), abs=4 * 4 / np.sqrt(n))
