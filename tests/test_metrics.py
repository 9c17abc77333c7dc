"""Metrics over many settings at once against scikit-learn and SciPy; intervals; FLOPs by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from pipeline.evaluation.intervals import mean_interval, median_interval, proportion_interval
from pipeline.evaluation.metrics import METRICS, metrics_for, score
from pipeline.models.flops import EncoderShape, encoder_flops
from pipeline.tasks.names import TASKS

rng = np.random.default_rng(0)
LABELS = rng.integers(0, 2, 200).astype(float)
PREDICTIONS = rng.integers(0, 2, (5, 200)).astype(float)
VALUES = rng.integers(0, 50, 200) / 10
GUESSES = (VALUES + rng.normal(size=(5, 200))).round(1)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", sk.accuracy_score),
        ("f1", sk.f1_score),
        ("macro_f1", lambda labels, guesses: sk.f1_score(labels, guesses, average="macro")),
        ("matthews", sk.matthews_corrcoef),
    ],
)
def test_classification(name: str, reference) -> None:
    expected = [reference(LABELS, p) for p in PREDICTIONS]
    np.testing.assert_allclose(METRICS[name](PREDICTIONS, LABELS), expected, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7, 40])
@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["any", "unseen labels", "unseen answers", "one label", "one answer"])
def test_several_classes_as_in_scikit_learn(classes: int, share: float, kind: str) -> None:
    """Imbalanced, and with classes that only labels, only answers, or neither have."""
    generator = np.random.default_rng(classes)
    weights = 1.0 / np.arange(1, classes + 1) ** 2
    labels = generator.choice(classes, 300, p=weights / weights.sum())
    guesses = np.where(generator.random((6, 300)) < share, labels, generator.integers(0, classes, (6, 300)))
    if kind == "unseen labels":
        labels[labels == classes - 1] = 0
    elif kind == "unseen answers":
        guesses[guesses == 1] = 0
    elif kind == "one label":
        labels[:] = 1
    elif kind == "one answer":
        guesses[:] = classes - 1
    for name, reference in (
        ("macro_f1", lambda one: sk.f1_score(labels, one, average="macro")),
        ("matthews", lambda one: sk.matthews_corrcoef(labels, one)),
    ):
        found = METRICS[name](guesses.astype(float), labels.astype(float))
        np.testing.assert_allclose(found, [reference(one) for one in guesses], rtol=1e-12, atol=1e-15, err_msg=name)


def test_metrics_fit_a_kind_of_answers() -> None:
    assert metrics_for("classification", 2) == ("accuracy", "f1", "macro_f1", "matthews")
    assert metrics_for("classification", 3) == ("accuracy", "macro_f1", "matthews")
    assert metrics_for("regression", 1) == ("pearson", "spearman")


@pytest.mark.parametrize(("name", "reference"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlation(name: str, reference) -> None:
    expected = [reference(g, VALUES).statistic for g in GUESSES]
    np.testing.assert_allclose(METRICS[name](GUESSES, VALUES), expected, rtol=1e-10)


@pytest.mark.parametrize("unit", [1e-300, 1e-9, 1e-7, 1e-3, 1.0, 1e9, 1e150])
@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_correlation_does_not_depend_on_the_unit(name: str, unit: float) -> None:
    plain = METRICS[name](GUESSES, VALUES)
    np.testing.assert_allclose(METRICS[name](GUESSES * unit, VALUES * unit), plain, rtol=1e-10)
    np.testing.assert_allclose(METRICS[name](GUESSES * unit, VALUES), plain, rtol=1e-10)
    near = 1000 * unit + VALUES * unit * 1e-3  # far from 0, and close together
    np.testing.assert_allclose(METRICS["pearson"](GUESSES, near), METRICS["pearson"](GUESSES, VALUES), rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-7, 1 / 3, 1e12])
def test_a_constant_has_no_correlation_whatever_its_mean_rounds_to(value: float) -> None:
    constant = np.full(len(VALUES), value)
    assert np.isnan(METRICS["pearson"](np.stack([constant, VALUES]), VALUES)).tolist() == [True, False]
    assert np.isnan(METRICS["spearman"](GUESSES, constant)).all()


def test_not_defined_is_nan_and_never_zero() -> None:
    assert np.isnan(METRICS["pearson"](np.full((1, 200), 3.0), VALUES)[0])
    assert np.isnan(METRICS["f1"](np.zeros((1, 3)), np.zeros(3))[0])
    assert median_interval([float("nan")]).median is None


def test_constant_prediction_has_matthews_zero_as_in_scikit_learn() -> None:
    assert METRICS["matthews"](np.zeros((1, 200)), LABELS)[0] == sk.matthews_corrcoef(LABELS, np.zeros(200)) == 0


def test_score_is_the_mean_of_the_metrics() -> None:
    both = score(("accuracy", "f1"), PREDICTIONS, LABELS)
    np.testing.assert_allclose(
        both, (METRICS["accuracy"](PREDICTIONS, LABELS) + METRICS["f1"](PREDICTIONS, LABELS)) / 2
    )


GLUE = {name: task for name, task in TASKS.items() if task.server}
REFERENCES = {
    "accuracy": sk.accuracy_score,
    "f1": sk.f1_score,
    "matthews": sk.matthews_corrcoef,
    "pearson": lambda labels, guesses: stats.pearsonr(guesses, labels).statistic,
    "spearman": lambda labels, guesses: stats.spearmanr(guesses, labels).statistic,
}


@pytest.mark.parametrize("name", GLUE)
def test_each_task_of_glue_is_scored_as_its_references_say(name: str) -> None:
    """Correlations over values with many ties; classes that are rare."""
    task = GLUE[name]
    generator = np.random.default_rng(len(name))
    if task.kind == "regression":
        labels = generator.integers(0, 11, 150) / 2
        guesses = (labels + generator.normal(size=(4, 150))).round(0)
        assert len(np.unique(guesses[0])) < 15
    else:
        labels = generator.choice(task.outputs, 150, p=np.arange(1, task.outputs + 1) / sum(range(task.outputs + 1)))
        guesses = np.where(generator.random((4, 150)) < 0.7, labels, generator.integers(0, task.outputs, (4, 150)))
    expected = [np.mean([REFERENCES[metric](labels, g) for metric in task.metrics]) for g in guesses]
    np.testing.assert_allclose(score(task.metrics, guesses.astype(float), labels.astype(float)), expected, rtol=1e-10)
    assert task.metrics == {
        "cola": ("matthews",),
        "mrpc": ("accuracy", "f1"),
        "qqp": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
    }.get(name, ("accuracy",))


def test_intervals() -> None:
    five = median_interval([0.5, 0.1, 0.9, 0.3, 0.7])
    assert (five.median, five.low, five.high, five.coverage) == (0.5, 0.1, 0.9, 0.9375)
    assert median_interval([0.5]).low is None
    share = proportion_interval(8, 10)
    assert share.low < share.value == 0.8 < share.high
    assert proportion_interval(0, 0).value is None
    mean = mean_interval([1.0, 2.0, 3.0, 10.0])
    assert mean.low < mean.value == 4.0 < mean.high
    assert mean_interval([]).value is None


def test_range_of_five_covers_the_median_as_stated() -> None:
    draws = np.random.default_rng(1).normal(size=(20_000, 5))
    covered = ((draws.min(axis=1) < 0) & (draws.max(axis=1) > 0)).mean()
    assert covered == pytest.approx(0.9375, abs=0.01)


def test_flops_by_hand() -> None:
    shape = EncoderShape(layers=2, hidden=4, intermediate=8, embedding=2, head_width=4, classes=3)
    at_exit, full = encoder_flops(shape, np.array([5]), np.array([1, 2]))
    layer = 2 * 5 * (4 * 16 + 2 * 4 * 8) + 4 * 25 * 4
    embed = 2 * 5 * 2 * 4
    head = 2 * 4 * 4 + 2 * 4 * 3
    np.testing.assert_array_equal(at_exit, [[embed + layer + head, embed + 2 * layer + 2 * head]])
    np.testing.assert_array_equal(full, [embed + 2 * layer + head])
