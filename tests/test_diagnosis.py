"""The diagnosis by hand on a trace of five rows, and its calibration error against a plain loop."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ArtifactError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.diagnosis import BINS, agreement, calibration_error, diagnose, learned, overthought
from pipeline.evaluation.intervals import median_interval
from pipeline.evaluation.point import point_of
from pipeline.evaluation.sweep import NEVER
from pipeline.evaluation.trace import Trace
from pipeline.results import ALL_LAYERS, Constant, Diagnosis, OverSeeds, Row
from tests.test_choosing import made_up_trace

ANSWERS = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 0]])
LABELS = np.array([0.0, 1.0, 1.0, 1.0, 1.0])


def trace_of(kind: str = "classification", labels: np.ndarray = LABELS) -> Trace:
    """The answers as sure logits; their own values for a regression. Rows are called 10, 11, ..."""
    logits = 4 * np.eye(2)[ANSWERS] if kind == "classification" else ANSWERS[:, :, None].astype(float)
    flops = np.tile([10.0, 20.0, 30.0], (5, 1))
    return Trace(
        kind, logits.astype(np.float32), labels, np.arange(10, 15), np.array([2.0, 4.0, 6.0]), flops, np.full(5, 28.0)
    )


def answered(answers: Sequence[float], labels: Sequence[float], kind: str = "classification") -> Trace:
    """One exit that answers so; classes as sure logits of three, of which the third is never right."""
    given, truth, rows = np.array(answers), np.array(labels, dtype=np.float64), len(labels)
    logits = 4 * np.eye(3)[given.astype(int)] if kind == "classification" else given[:, None]
    whole = np.ones(rows)
    return Trace(
        kind, logits[:, None].astype(np.float32), truth, np.arange(rows), np.array([1.0]), whole[:, None], whole
    )


HALF = [0.0, 1.0] * 20
MOST = [1.0] * 14 + [0.0] * 6
LUCKY = [1.0] * 22 + [0.0] * 18  # in the order of HALF: half right


@pytest.mark.parametrize(
    ("trace", "metrics", "constant", "right", "knows"),
    [
        (answered([1] * 40, HALF), ("accuracy",), 0.5, 0.5, False),  # one of two equal classes for every row
        (answered([2] * 40, HALF), ("accuracy",), 0.5, 0.0, False),
        (answered(HALF, HALF), ("accuracy",), 0.5, 1.0, True),
        (answered([1 - label for label in HALF], HALF), ("accuracy",), 0.5, 0.0, False),  # depends, the wrong way round
        (answered([1, 1, *LUCKY[2:]], HALF), ("accuracy",), 0.5, 0.55, False),  # a little above, by luck
        (answered([1] * 20, MOST), ("accuracy",), 0.7, 0.7, False),  # the larger class
        (answered([1] * 20, MOST), ("accuracy", "f1"), (0.7 + 1.4 / 1.7) / 2, (0.7 + 1.4 / 1.7) / 2, False),
        (answered([1] * 20, MOST), ("matthews",), 0.0, 0.0, False),
        (answered(MOST, MOST), ("matthews",), 0.0, 1.0, True),
        (answered([1, 0], [1, 0]), ("accuracy",), 0.5, 1.0, False),  # all right, by luck as well as by skill
        (answered([2.5] * 40, HALF, "regression"), ("pearson",), None, None, False),
        (answered(HALF, HALF, "regression"), ("pearson",), None, 1.0, True),
        (answered([-label for label in HALF], HALF, "regression"), ("pearson", "spearman"), None, -1.0, False),
    ],
)
def test_a_model_knows_more_than_one_answer_for_every_row(
    trace: Trace, metrics: tuple[str, ...], constant: float | None, right: float | None, knows: bool
) -> None:
    found = diagnose(trace, metrics)
    assert found.constant.score == (None if constant is None else pytest.approx(constant, abs=1e-6))
    of_model = Diagnosis(**dict(found), **named(1))
    other = of_model.model_copy(update={"method": "other", "constant": Constant(score=0.0, p=1.0 if knows else 0.0)})
    of_models = learned(all_layers(right), [of_model, other])
    assert of_models.by_seed == {1: knows}
    assert of_models.nothing is not knows


def test_dependence_on_the_labels_is_tested_as_scipy_does() -> None:
    from scipy import stats

    generator = np.random.default_rng(0)
    for rows in (2, 3, 10, 300):
        labels = generator.integers(3, size=rows).astype(float)
        answers = np.where(generator.random(rows) < 0.3, labels, generator.integers(3, size=rows))
        found = diagnose(answered(answers.tolist(), labels.tolist()), ("accuracy",)).constant.p
        table = stats.contingency.crosstab(answers, labels).count
        expected = stats.chi2_contingency(table, correction=False).pvalue if min(table.shape) > 1 else 1.0
        assert found == pytest.approx(expected, rel=1e-9)
        values = (labels + generator.normal(size=rows)).astype(np.float32).astype(float)
        found = diagnose(answered(values.tolist(), labels.tolist(), "regression"), ("pearson",)).constant.p
        expected = stats.pearsonr(values, labels).pvalue if np.ptp(labels) else 1.0
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


def named(seed: int) -> dict[str, Any]:
    return {"backbone": "b", "method": "m", "split": "s", "seed": seed, "key": f"k{seed}"}


def all_layers(*scores: float | None) -> Row:
    """A row of seeds 1, 2, ... with these scores."""
    seeds = tuple(range(1, len(scores) + 1))
    ratio = median_interval([1.0] * len(seeds))
    return Row(
        backbone="b", method="m", split="s", seeds=seeds, keys=tuple(f"k{seed}" for seed in seeds),
        points=(ALL_LAYERS,) * len(seeds), score=OverSeeds(median=None, values=scores) if None in scores else
        median_interval([score for score in scores if score is not None]), metrics={"accuracy": ratio},
        layer_speedup=ratio, flop_speedup=ratio, rule="window", in_window=True, selected_on="selection",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "ps", "ignorant", "nothing"),
    [
        ((0.24, -0.17), (0.002, 0.175), 1, False),  # the regression of a user: one of two seeds has learned
        ((0.1, -0.17), (0.175, 0.175), 2, True),
        ((0.1, 0.1), (0.001, 0.001), 0, False),
        ((0.5, -0.1, -0.1), (0.0, 0.5, 0.5), 2, True),  # the medians are of a model that has not
        ((0.5, 0.5, -0.1), (0.0, 0.0, 0.0), 1, False),
        ((None, 0.5), (1.0, 0.0), 1, False),
    ],
)
def test_each_seed_has_learned_or_not(
    scores: tuple[float | None, ...], ps: tuple[float, ...], ignorant: int, nothing: bool
) -> None:
    found = dict(diagnose(answered(HALF, HALF, "regression"), ("pearson",)))
    models = [
        Diagnosis(**{**found, "constant": Constant(score=None, p=p)}, **named(seed)) for seed, p in enumerate(ps, 1)
    ]
    of_models = learned(all_layers(*scores), models)
    assert (of_models.ignorant, of_models.nothing) == (ignorant, nothing)
    assert of_models.by_seed == {
        seed: (score or 0) > 0 and p < 0.05 for seed, (score, p) in enumerate(zip(scores, ps, strict=True), 1)
    }


def test_what_the_last_exit_makes_of_each_class() -> None:
    trace = replace(answered([0, 0, 0, 1, 1], [0, 0, 1, 2, 1]), label_names=("a", "b", "c"))
    assert [tuple(dict(one).values()) for one in diagnose(trace, ("accuracy",)).classes or ()] == [
        ("a", 2, 2, 3),
        ("b", 2, 1, 2),
        ("c", 1, 0, 0),
    ]
    unnamed = diagnose(trace_of(), ("accuracy",)).classes
    assert [(one.name, one.rows) for one in unnamed or ()] == [("0", 1), ("1", 4)]
    assert diagnose(trace_of("regression"), ("pearson",)).classes is None


def test_by_hand() -> None:
    points = [point_of(make(name), {}, at) for name, at in (("patience", 1.0), ("fixed", 1.0), ("entropy", NEVER))]
    found = diagnose(trace_of(), ("accuracy",), points).model_dump(mode="json")
    assert (found["rows"], found["layers"]) == (5, [2.0, 4.0, 6.0])
    # Rows 13 and 14 are right at the first exit and wrong at the last.
    assert overthought(trace_of()).tolist() == [False, False, False, True, True]
    assert found["overthinking"] == {"rows": 2, "share": 0.4}
    # The oracle leaves at exits 1, 1, 2, 1, 1 and is always right.
    assert found["oracle"] == {
        "score": 1.0,
        "layer_speedup": round(30 / 12, 6),
        "flop_speedup": round(140 / 60, 6),
    }
    assert found["agreement"] == [[1.0, 0.4, 0.4], [0.4, 1.0, 0.6], [0.4, 0.6, 1.0]]
    assert found["error"] == [0.2, 0.4, 0.4]
    # Each prediction has logits 4 and 0.
    sure = 1 / (1 + np.exp(-4.0))
    nats = -(sure * np.log(sure) + (1 - sure) * np.log(1 - sure))
    assert found["entropy"] == pytest.approx([nats] * 3, abs=1e-6)
    patience, fixed, entropy = found["criteria"]
    # Patience 1 leaves at exits 2, 3, 3, 3, 2: row 14 is won.
    assert patience == {
        "criterion": "patience",
        "threshold": 1.0,
        "exits": [0, 2, 3],
        "lost": {"rows": 0, "share": 0.0},
        "won": {"rows": 1, "share": 0.2},
        "lost_rows": [],
        "won_rows": [14],
        "lost_by_class": [0, 0],
        "won_by_class": [0, 1],
    }
    assert (fixed["exits"], fixed["lost_rows"], fixed["won_rows"]) == ([5, 0, 0], [12], [13, 14])
    assert (fixed["lost_by_class"], fixed["won_by_class"]) == ([0, 1], [0, 2])
    assert (entropy["threshold"], entropy["exits"], entropy["lost"]["rows"]) == (None, [0, 0, 5], 0)


def test_a_regression_has_no_right_and_wrong() -> None:
    found = diagnose(trace_of("regression"), ("pearson",), [point_of(make("patience"), {}, 1.0)])
    assert found.overthinking is found.agreement is found.calibration is None
    assert found.error is found.entropy is None
    # The first exit as near as the last: 1, 1, 2, 1, 1.
    assert found.oracle.layer_speedup == round(30 / 12, 6)
    point = found.criteria[0]
    assert (point.exits, point.lost, point.won, point.lost_rows) == ((0, 2, 3), None, None, None)


def test_a_score_that_is_not_defined_is_none() -> None:
    assert diagnose(trace_of("regression", np.ones(5)), ("pearson",)).oracle.score is None


def test_calibration_against_a_loop() -> None:
    trace = made_up_trace(500, exits=3)
    expected = []
    for j in range(3):
        p = np.exp(trace.logits[:, j].astype(float))
        p /= p.sum(axis=1, keepdims=True)
        gap = 0.0
        for b in range(BINS):
            at = (p.max(axis=1) > b / BINS) & (p.max(axis=1) <= (b + 1) / BINS)
            if at.any():
                right = p[at].argmax(axis=1) == trace.labels[at]
                gap += at.mean() * abs(right.mean() - p[at].max(axis=1).mean())
        expected.append(gap)
    np.testing.assert_allclose(calibration_error(trace), expected, rtol=1e-6)
    assert calibration_error(trace_of())[2] == pytest.approx(1 / (1 + np.exp(-4)) - 0.6)


def test_agreement_is_symmetric() -> None:
    found = agreement(made_up_trace(200))
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)


def test_row_ids_are_cut_and_counts_are_not() -> None:
    trace = made_up_trace(500)
    point = diagnose(trace, ("accuracy",), [point_of(make("fixed"), {}, 1.0)]).criteria[0]
    assert point.lost is not None
    assert point.won is not None
    assert point.lost.rows > len(point.lost_rows or ()) == 10
    full, early = (trace.answers()[:, j] == trace.labels for j in (-1, 0))
    assert point.lost.rows - point.won.rows == full.sum() - early.sum()


def test_rows_without_labels_are_refused() -> None:
    with pytest.raises(ArtifactError, match="1 of 5 rows have no label"):
        diagnose(trace_of(labels=np.array([0.0, 1.0, np.nan, 0.0, 1.0])), ("accuracy",))
