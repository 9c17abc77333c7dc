"""What `gates` and `scheduled` learn from selection rows: by hand, and on traces whose best rule is known."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ArtifactError, ParamsError, UnsupportedError
from pipeline.evaluation.choosing import Window
from pipeline.evaluation.criteria import make
from pipeline.evaluation.criteria.fitting import logistic_fit, nll
from pipeline.evaluation.criteria.gates import distribution_features
from pipeline.evaluation.criteria.scheduled import assigned, cuts_of
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.point import criterion_of, point_of
from pipeline.evaluation.sweep import scan, sweep
from tests.test_choosing import ACCURACY, made_up_trace, rows_of

RIVALS = ("gates", "scheduled")


def test_features_by_hand() -> None:
    p = np.array([[0.6, 0.3, 0.1]])
    squared = p**2 / (p**2).sum()
    found = np.stack(distribution_features(np.log(p) + 2.0), axis=1)
    np.testing.assert_allclose(found, [[0.6, -(p * np.log(p)).sum(), 0.3, -(squared * np.log(squared)).sum()]])
    ruled_out = np.stack(distribution_features(np.array([[0.0, -np.inf, -np.inf]])), axis=1)
    np.testing.assert_allclose(ruled_out, [[1, 0, 1, 0]])
    np.testing.assert_allclose(nll(np.array([[0.0, -np.inf], [0.0, 0.0]]), np.array([1, 1])), [100, np.log(2)])


def test_a_logistic_regression_finds_the_odds_of_each_side() -> None:
    side = np.repeat([0.0, 1.0], [40, 60])
    targets = np.r_[np.repeat([1.0, 0.0], [10, 30]), np.repeat([1.0, 0.0], [45, 15])]
    slope, bias = logistic_fit(side[:, None], targets, np.ones(100))
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(0.25, abs=0.01)
    assert 1 / (1 + np.exp(-bias - slope)) == pytest.approx(0.75, abs=0.01)
    heavier = logistic_fit(side[:, None], targets, np.where(targets == 1, 3.0, 1.0))
    assert 1 / (1 + np.exp(-heavier[1])) == pytest.approx(0.5, abs=0.01)
    assert np.isfinite(logistic_fit(side[:, None], np.ones(100), np.ones(100))).all()


@pytest.mark.parametrize("name", RIVALS)
def test_what_is_learned_survives_json_and_fits_its_model_alone(name: str) -> None:
    trace = made_up_trace(300)
    fitted = make(name).fit(trace)
    assert fitted != make(name)
    assert make(name).fit(trace) == fitted
    point = point_of(fitted, {}, 0.5)
    again = criterion_of(type(point).model_validate_json(point.model_dump_json()))
    assert again == fitted
    for other in (made_up_trace(20, exits=5), made_up_trace(20, classes=4)):
        if name == "scheduled" or other.exits != trace.exits:
            with pytest.raises(ArtifactError, match=f"'{name}': what it learned is not for"):
                scan(other, fitted)
    with pytest.raises(UnsupportedError, match=f"'{name}' needs class probabilities and the trace is a regression"):
        make(name).fit(replace(trace, kind="regression", logits=trace.logits[:, :, :1]))


def test_gates_leave_earlier_where_layers_cost_more() -> None:
    trace, half = made_up_trace(1500), np.array([0.5])
    speeds = [
        sweep(trace, make("gates", {"trade_off": cost}).fit(trace), half).layer_speedup[0] for cost in (0.0, 0.5, 1e3)
    ]
    assert speeds[0] < speeds[1] < speeds[2]
    assert speeds[2] == pytest.approx(6.0, rel=0.05)  # nothing is worth a layer


def test_a_gate_learns_when_its_exit_is_the_best() -> None:
    """Two exits; the first is right where it is sure, and names nothing where it is not."""
    rows = 400
    easy = np.arange(rows) % 2 == 0
    labels = np.arange(rows) // 2 % 2
    sure = 3.0 * np.eye(2)[labels]
    logits = np.stack([np.where(easy[:, None], sure, 0.0), 3.2 * np.eye(2)[labels]], axis=1)
    trace = rows_of(made_up_trace(rows, exits=2, classes=2), np.arange(rows))
    trace = replace(trace, logits=logits.astype(np.float32), labels=labels.astype(float))
    scores, _ = scan(trace, make("gates").fit(trace))
    assert scores[easy, 0].min() > 0.5 > scores[~easy, 0].max()


def test_assignments_meet_their_budget() -> None:
    q = np.random.default_rng(0).uniform(0.2, 1, (500, 4))
    costs = np.array([0.25, 0.5, 0.75, 1.0])
    for speedup in (1.2, 2.0, 3.5):
        shares = assigned(q, costs, speedup, 1.0)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        assert (shares @ costs).mean() == pytest.approx(1 / speedup, abs=1e-6)
    sharp, flat = assigned(q, costs, 1.5, 4.0), assigned(q, costs, 1.5, 0.0)
    assert (sharp * q).sum(axis=1).mean() > (flat * q).sum(axis=1).mean()
    np.testing.assert_allclose(flat, flat[:1].repeat(500, axis=0))
    cheapest = assigned(q, costs, 9.0, 1.0)  # no exit is so cheap
    np.testing.assert_allclose(cheapest[:, 0], 1.0)


def test_cuts_by_hand() -> None:
    q = np.array([[0.9, 0.1, 1], [0.8, 0.7, 1], [0.3, 0.6, 1], [0.2, 0.5, 1]])
    assert cuts_of(q, np.array([0.5, 0.25, 0.25])) == (0.8, 0.6, 0.0)
    assert cuts_of(q, np.array([0.0, 0.75, 0.25])) == (1.0, 0.5, 0.0)


@pytest.mark.parametrize("speedup", [1.3, 2.0])
def test_at_threshold_0_a_schedule_spends_its_budget(speedup: float) -> None:
    selection, report = made_up_trace(2000, seed=3), made_up_trace(2000, seed=4)
    fitted = make("scheduled", {"speedup": speedup}).fit(selection)
    assert sweep(selection, fitted, np.array([0.0])).layer_speedup[0] == pytest.approx(speedup, rel=0.03)
    assert sweep(report, fitted, np.array([0.0])).layer_speedup[0] == pytest.approx(speedup, rel=0.1)
    # What leaves early is what the scores think right: better than leaving at random at that speed.
    swept = sweep(report, fitted, np.array([0.0]))
    shares = swept.exit_counts[0] / report.rows
    at_random = (shares * (report.answers() == report.labels[:, None]).mean(axis=0)).sum()
    assert swept.metrics(ACCURACY)["accuracy"][0] > at_random + 0.02


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gates", {"trade_off": -1.0}, "criterion.gates.trade_off: -1.0 is below 0"),
        ("scheduled", {"speedup": 0.5}, "criterion.scheduled.speedup: 0.5 is below 1"),
        ("scheduled", {"sharpness": -0.5}, "criterion.scheduled.sharpness: -0.5 is below 0"),
    ],
)
def test_impossible_settings_are_refused(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        make(name, settings)


def test_they_have_rows_of_their_own_that_name_their_chooser() -> None:
    traces = {"selection": made_up_trace(400, seed=1), "validation": made_up_trace(400, seed=2)}
    group = Group("b", "joint", True, (SeedTraces(1, "k", traces),))
    rows = evaluate_group(group, {"gates": {}, "scheduled": {"speedup": 1.6}}, ACCURACY, Window(1.3, 1.96)).rows
    assert [(row.criterion, row.rule, row.in_window) for row in rows[1:]] == [(n, "window", True) for n in RIVALS]
    assert all(1.2 < (row.layer_speedup.median or 0) < 2.1 for row in rows[1:])
