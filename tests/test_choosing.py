"""Operating points: three rules on hand-made sweeps; the risk rule's promise over many resampled selection splits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from pipeline.errors import ArtifactError, ParamsError, UnsupportedError
from pipeline.evaluation.choosing import (
    Choice,
    Chooser,
    Latency,
    Online,
    Risk,
    Speedup,
    Window,
    fit_and_choose,
    make_chooser,
)
from pipeline.evaluation.criteria import make
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.risks import betting_holds, first_by_counting, losses, lost, measured, monotone
from pipeline.evaluation.sweep import NEVER, Sweep, sweep
from pipeline.evaluation.trace import Trace
from pipeline.identity.imports import ROOT
from pipeline.params import load_params
from pipeline.results import ExitCosts

PROFILE = ROOT / "profiles/demo.yaml"
ACCURACY = ("accuracy",)


def made_up_trace(rows: int, exits: int = 6, classes: int = 3, seed: int = 0) -> Trace:
    """Answers that get better with depth, with errors that neighbouring exits share."""
    generator = np.random.default_rng(seed)
    depth = np.arange(1.0, exits + 1)
    labels = generator.integers(classes, size=rows)
    noise = generator.normal(size=(rows, exits, classes)).cumsum(axis=1) / np.sqrt(depth)[:, None]
    logits = 2 * noise + depth[:, None] * np.eye(classes)[labels][:, None, :]
    flops = np.tile(depth, (rows, 1))
    return Trace(
        "classification", logits.astype(np.float32), labels.astype(float), np.arange(rows), depth, flops, flops[:, -1]
    )


def rows_of(trace: Trace, rows: np.ndarray) -> Trace:
    """Some rows under new ids; a row drawn twice is two rows."""
    names = ("logits", "labels", "flops", "full_flops")
    return replace(trace, row_ids=np.arange(len(rows)), **{name: getattr(trace, name)[rows] for name in names})


def swept_by(speeds: list[float], scores: list[float]) -> Sweep:
    """A sweep with given layer speed-ups and accuracies (in eighths), by hand; threshold i is setting i."""
    n, k = 8, len(speeds)
    right = np.array([round(8 * s) for s in scores])
    past = np.zeros((n, k - 1), dtype=np.uint8) + np.arange(1, k, dtype=np.uint8)  # setting i leaves at exit i
    answers = (np.arange(n)[:, None] < right).astype(float)
    counts = n * np.eye(k, dtype=np.int64)
    return Sweep(
        "classification", np.arange(float(k)), past, answers, np.ones(n), counts, np.array(speeds), np.array(speeds)
    )


@pytest.mark.parametrize(
    ("chooser", "threshold", "met"),
    [
        (Window(1.3, 1.9), 2.0, True),  # better than 1, as good as 3, which is outside
        (Window(1.5, 4.0), 1.0, True),
        (Window(2.2, 2.5), 1.0, False),  # 1.8 is nearest
        (Window(5.0, 6.0), 0.0, False),
        (Speedup(1.5), 1.0, True),
        (Speedup(1.8), 1.0, True),
        (Speedup(1.81), 0.0, True),
        (Speedup(4.1), 0.0, False),
        (Speedup(1.0), 3.0, True),
        (Latency(5.0, costs=(1, 3, 5, 8)), 2.0, True),
        (Latency(9.0, costs=(1, 3, 5, 8)), 2.0, True),  # 3 scores the same and is slower
        (Latency(4.9, costs=(1, 3, 5, 8)), 1.0, True),
        (Latency(9.0, costs=(1, 3, 8, 5)), 3.0, True),  # by the clock the last exit is faster than the third
        (Latency(0.5, costs=(2, 1, 5, 8)), 1.0, False),
    ],
)
def test_rules_by_hand(chooser: Chooser, threshold: float, met: bool) -> None:
    swept = swept_by([4.0, 1.8, 1.4, 1.0], [0.5, 0.75, 0.875, 0.875])
    assert swept.metrics(ACCURACY)["score"].tolist() == [0.5, 0.75, 0.875, 0.875]
    assert chooser.choose(swept, ACCURACY) == Choice(threshold, met)


@pytest.mark.parametrize("name", ["patience", "confidence", "entropy"])
def test_within_the_budget_no_setting_scores_better(name: str) -> None:
    """And more milliseconds never choose a worse one."""
    trace = made_up_trace(400, seed=4)
    costs = (1.5, 2.0, 4.0, 3.5, 6.0, 9.0)
    swept = sweep(trace, make(name))
    score = swept.metrics(ACCURACY)["score"]
    expected = np.array([np.array(costs)[swept.exits_at(k)].mean() for k in range(len(swept.thresholds))])
    before = -1.0
    for budget in (0.5, 1.6, 2.5, 3.5, 5.0, 8.0, 10.0):
        chooser = Latency(budget, costs=costs)
        chosen = chooser.choose(swept, ACCURACY)
        at = int(np.searchsorted(swept.thresholds, chosen.threshold))
        np.testing.assert_allclose(chooser.expected_ms(swept), expected)
        assert chosen.in_window == (expected.min() <= budget)
        if not chosen.in_window:
            assert expected[at] == expected.min()
            continue
        assert expected[at] <= budget
        assert score[at] == score[expected <= budget].max() >= before
        assert expected[at] == expected[(expected <= budget) & (score == score[at])].min()
        before = score[at]
    assert before > 0.8


def costs_of(**changes: Any) -> ExitCosts:
    own: dict[str, Any] = {"backbone": "b", "method": "joint", "engine": "onnx-int8", "machine": "m", "threads": 1}
    return ExitCosts(**{**own, "rows": 5, "ms": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "full_ms": 5.5, **changes})


def test_costs_are_those_of_the_model_and_stand_in_the_rows() -> None:
    trace = made_up_trace(200)
    group = Group("b", "joint", True, (SeedTraces(1, "key", {"selection": trace, "test": trace}),))
    base = make_chooser({"rule": "latency", "budget_ms": 4.0, "engine": "onnx-int8"}, (1, 2))
    with pytest.raises(ArtifactError, match="0 costs for 6 exits; rule 'latency' needs those of this model"):
        evaluate_group(group, {"patience": {}}, ACCURACY, base.for_model("other", "joint", [costs_of()]))
    chooser = base.for_model("b", "joint", [costs_of(method="two_stage", ms=(9.0,) * 6), costs_of()])
    full, row = evaluate_group(group, {"confidence": {}}, ACCURACY, chooser).rows
    assert full.cost_ms is not None
    assert full.cost_ms.values == (5.5,), "all layers ask no exit on the way"
    swept = sweep(trace, make("confidence"), np.array([row.points[0].limit]))
    assert row.cost_ms is not None
    assert row.cost_ms.median == pytest.approx((swept.exits_at(0) + 1).mean())
    assert row.in_window
    assert row.rule == "latency"


def test_ties_go_to_the_faster_setting_and_among_equals_in_speed_to_the_better() -> None:
    swept = swept_by([2.0, 1.8, 1.8, 1.0], [0.75, 0.75, 0.875, 0.875])
    assert Window(1.9, 2.5).choose(swept, ACCURACY).threshold == 0.0
    assert Window(1.0, 1.9).choose(swept, ACCURACY).threshold == 2.0
    assert Speedup(1.5).choose(swept, ACCURACY).threshold == 2.0
    assert Window(1.0, 2.0).choose(swept_by([2.0, 1.0], [0.75, 0.75]), ACCURACY).threshold == 0.0


def test_what_counts_as_lost() -> None:
    labels, answers = np.array([1.0, 1.0, 0.0]), np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    blank = np.zeros((3, 1), dtype=np.uint8)
    swept = Sweep("classification", np.zeros(1), blank, answers, labels, np.zeros((1, 2)), np.ones(1), np.ones(1))
    assert lost(swept, "gap").tolist() == [[True, False], [False, False], [False, False]]
    assert lost(swept, "consistency").tolist() == [[True, False], [True, False], [False, False]]
    real = replace(swept, kind="regression", answers=np.array([[1.0, 1.5], [3.0, 2.0], [0.2, 0.0]]))
    assert lost(real, "gap", 0.5).tolist() == [[False, False], [True, False], [False, False]]
    assert lost(real, "consistency", 0.4).tolist() == [[True, False], [True, False], [False, False]]
    unknown = replace(swept, labels=np.array([1.0, np.nan, 0.0]))
    assert lost(unknown, "consistency").any()
    with pytest.raises(ArtifactError, match=r"1 rows have no label.*loss: consistency"):
        lost(unknown, "gap")


def test_the_risk_rule_stops_at_the_first_failure() -> None:
    trace = made_up_trace(2000)
    swept = sweep(trace, make("confidence"))
    losses = swept.total(lost(swept, "gap"))
    accepted = stats.binom.cdf(losses, trace.rows, 0.03) <= 0.1
    run = len(accepted) - np.argmin(accepted[::-1])
    chosen = Risk(0.03, 0.1).choose(swept, ACCURACY)
    assert chosen == Choice(float(swept.thresholds[run]), True)
    assert 1.1 < swept.layer_speedup[run] < swept.layer_speedup[0]
    assert not accepted[run - 1]
    assert accepted[run:].all()


def test_too_few_rows_certify_nothing() -> None:
    enough = int(np.ceil(np.log(0.1) / np.log(1 - 0.05)))
    same = np.zeros((enough, 4, 2))
    same[:, :, 0] = 9
    trace = rows_of(made_up_trace(enough, exits=4, classes=2), np.arange(enough))
    trace = replace(trace, logits=same.astype(np.float32), labels=np.zeros(enough))
    assert Risk(0.05, 0.1).choose(sweep(trace, make("confidence")), ACCURACY).in_window
    fewer = rows_of(trace, np.arange(enough - 1))
    assert Risk(0.05, 0.1).choose(sweep(fewer, make("confidence")), ACCURACY) == Choice(NEVER, False)


@pytest.mark.parametrize("loss", ["gap", "consistency"])
@pytest.mark.parametrize(("name", "epsilon"), [("patience", 0.15), ("confidence", 0.05), ("entropy", 0.05)])
def test_the_promise_holds_over_resampled_selection_splits(name: str, epsilon: float, loss: str) -> None:
    population = made_up_trace(40_000, seed=1)
    truth = sweep(population, make(name))
    risk = truth.total(lost(truth, loss)) / population.rows
    delta, draws, n = 0.2, 300, 400
    chooser, generator = Risk(epsilon, delta, loss), np.random.default_rng(2)
    at = []
    for _ in range(draws):
        selection = rows_of(population, generator.integers(population.rows, size=n))
        chosen = chooser.choose(sweep(selection, make(name)), ACCURACY)
        at.append(int(np.searchsorted(truth.thresholds, chosen.threshold)))
    broken = int((risk[at] > epsilon).sum())
    assert broken <= stats.binom.ppf(0.999, draws, delta)
    # Not vacuous: speed is gained and risk is spent; where settings are fine enough, so is the allowance to err.
    assert np.mean(truth.layer_speedup[at]) > 1.15
    assert np.mean(risk[at]) > (0.25 if name == "patience" else 0.5) * epsilon
    assert broken >= (0 if name == "patience" else 0.2 * delta * draws)


@pytest.mark.parametrize(("loss", "epsilon"), [("gap", 0.05), ("brier", 0.03), ("brier_consistency", 0.06)])
def test_bets_keep_the_promise_for_losses_of_every_kind(loss: str, epsilon: float) -> None:
    population, name = made_up_trace(20_000, seed=1), "confidence"
    chooser = Risk(epsilon, 0.2, loss, bound="betting")
    truth = chooser.prepared(sweep(population, make(name)), population, make(name))
    risk, generator, draws = chooser.risk(truth), np.random.default_rng(2), 150
    at = []
    for _ in range(draws):
        selection = rows_of(population, generator.integers(population.rows, size=400))
        swept = chooser.prepared(sweep(selection, make(name)), selection, make(name))
        at.append(int(np.searchsorted(truth.thresholds, chooser.choose(swept, ACCURACY).threshold)))
    assert int((risk[at] > epsilon).sum()) <= stats.binom.ppf(0.999, draws, 0.2)
    assert np.mean(truth.layer_speedup[at]) > 1.1  # not vacuous
    assert np.mean(risk[at]) > 0.25 * epsilon


@pytest.mark.parametrize(("loss", "epsilon"), [("gap", 0.05), ("brier", 0.03)])
def test_conformal_risk_control_holds_on_average(loss: str, epsilon: float) -> None:
    population, name = made_up_trace(20_000, seed=1), "confidence"
    crc, sure = Risk(epsilon, loss=loss, bound="crc"), Risk(epsilon, 0.1, loss, bound="betting")
    truth = crc.prepared(sweep(population, make(name)), population, make(name))
    risk, generator = crc.risk(truth), np.random.default_rng(3)
    at: list[int] = []
    careful: list[int] = []
    for _ in range(150):
        selection = rows_of(population, generator.integers(population.rows, size=300))
        swept = crc.prepared(sweep(selection, make(name)), selection, make(name))
        for chooser, chosen in ((crc, at), (sure, careful)):
            chosen.append(int(np.searchsorted(truth.thresholds, chooser.choose(swept, ACCURACY).threshold)))
    error = risk[at].std() / np.sqrt(len(at))
    assert risk[at].mean() <= epsilon + 3 * error
    assert truth.layer_speedup[at].mean() > truth.layer_speedup[careful].mean()  # it promises the mean alone


def test_bounds_by_hand() -> None:
    assert monotone(np.array([[0.0, 1.0, 0.0], [0.5, -1.0, 0.0]])).tolist() == [[1, 1, 0], [0.5, 0, 0]]
    # Without a loss the stake grows as (1 + epsilon)^n at most.
    assert not betting_holds(np.zeros(20), 0.05, 0.1)
    assert betting_holds(np.zeros(80), 0.05, 0.1)
    assert not betting_holds(np.ones(80), 0.05, 0.1)
    assert betting_holds(-np.ones(20), 0.05, 0.1)  # rows that early exit wins count for it
    assert not betting_holds(np.zeros(0), 0.05, 0.1)
    assert not betting_holds(np.r_[np.zeros(900), np.ones(100)], 0.05, 0.1)  # though it begins without a loss
    # (0 + 1) / (n + 1) <= epsilon needs 9 rows at 0.1.
    for rows, met in ((8, False), (9, True)):
        trace = rows_of(made_up_trace(50), np.arange(rows))
        sure = replace(trace, logits=np.tile([9.0, 0, 0], (rows, 6, 1)).astype(np.float32), labels=np.zeros(rows))
        assert Risk(0.1, bound="crc").choose(sweep(sure, make("confidence")), ACCURACY).in_window == met


def test_the_binomial_bound_is_the_default() -> None:
    swept = sweep(made_up_trace(500), make("confidence"))
    first = first_by_counting(losses(swept, "gap"), swept, 0.05, 0.1)
    assert Risk(0.05, 0.1).choose(swept, ACCURACY).threshold == swept.thresholds[first]


def test_graded_losses_by_hand() -> None:
    p = np.array([[0.6, 0.4], [0.9, 0.1]])
    trace = rows_of(made_up_trace(1, exits=2, classes=2), np.array([0]))
    trace = replace(trace, logits=np.log(p)[None].astype(np.float32), labels=np.array([1.0]))
    for loss, expected in (("brier", 0.36 - 0.81), ("brier_consistency", 0.09)):
        chooser = Risk(0.1, 0.1, loss, bound="betting")
        found = chooser.prepared(sweep(trace, make("confidence")), trace, make("confidence")).measured
        assert found is not None
        np.testing.assert_allclose(found, [[expected, 0]], atol=1e-6)
    # A criterion that answers for itself is measured by its own answers.
    fitted = make("ensemble", fitted={"weights": [[2.0], [1.0, 1.0]], "biases": [[0.0, 0.0]] * 2})
    mixed = measured(trace, fitted, lambda logits, full, labels: np.exp(logits[:, 0]))
    np.testing.assert_allclose(mixed, [[0.36 / 0.52, 0.9]], atol=1e-6)
    real = replace(trace, kind="regression", logits=np.array([[[2.0], [1.5]]], dtype=np.float32))
    np.testing.assert_allclose(losses(sweep(real, make("patience")), "error", 2.0), [[0.25, 0.0]])
    np.testing.assert_allclose(losses(sweep(real, make("patience")), "error", 0.1), [[1.0, 0.0]])


def test_what_a_loss_lacks_is_named() -> None:
    trace = made_up_trace(30)
    real = replace(trace, kind="regression", logits=trace.logits[:, :, :1])
    chooser = Risk(0.1, 0.1, "brier", bound="betting")
    with pytest.raises(UnsupportedError, match="loss 'brier' needs class probabilities and the trace is a regression"):
        fit_and_choose(make("patience"), real, ACCURACY, chooser)
    with pytest.raises(UnsupportedError, match="rule 'online' needs class probabilities and the trace holds hard"):
        fit_and_choose(make("patience"), replace(trace, hard=True), ACCURACY, Online())
    unknown = replace(trace, labels=np.r_[np.nan, trace.labels[1:]])
    with pytest.raises(ArtifactError, match=r"1 rows have no label.*loss: brier_consistency"):
        fit_and_choose(make("patience"), unknown, ACCURACY, chooser)


def test_the_bandit_learns_without_labels_what_pays() -> None:
    trace, costs = made_up_trace(3000), (0.0, 0.3, 9.0)
    blind = replace(trace, labels=np.full(trace.rows, np.nan))
    chosen = {cost: fit_and_choose(make("confidence"), trace, ACCURACY, Online(cost))[1] for cost in costs}
    assert chosen == {c: fit_and_choose(make("confidence"), blind, ACCURACY, Online(c))[1] for c in costs}
    speeds = [sweep(trace, make("confidence"), np.array([c.threshold])).layer_speedup[0] for c in chosen.values()]
    assert speeds[0] < speeds[1] < speeds[2]
    assert speeds[2] == 6.0  # layers cost more than they could bring
    swept = Online(0.3).prepared(sweep(trace, make("confidence")), trace, make("confidence"))
    paid = swept.total(np.asarray(swept.measured)) / trace.rows
    arms = np.linspace(0, len(paid) - 1, 10).round().astype(int)
    at = int(np.searchsorted(swept.thresholds, chosen[0.3].threshold))
    assert paid[at] >= paid[arms].max() - 0.03  # nearly the best of the ten


def test_choosing_the_best_looking_setting_instead_breaks_the_promise() -> None:
    """The same resamples without a bound: the fastest setting whose measured loss is at most epsilon."""
    population = made_up_trace(40_000, seed=1)
    truth = sweep(population, make("confidence"))
    risk = truth.total(lost(truth, "gap")) / population.rows
    generator = np.random.default_rng(2)
    broken = 0
    for _ in range(200):
        swept = sweep(rows_of(population, generator.integers(population.rows, size=400)), make("confidence"))
        fine = swept.total(lost(swept, "gap")) / 400 <= 0.05
        broken += bool(risk[np.argmax(fine)] > 0.05)
    assert broken > stats.binom.ppf(0.999, 200, 0.2)


def test_what_learned_from_rows_is_certified_on_others() -> None:
    trace = made_up_trace(600)
    fitted, chosen = fit_and_choose(make("temperature"), trace, ACCURACY, Risk(0.05, 0.1))
    evens, odds = (rows_of(trace, np.arange(start, 600, 2)) for start in (0, 1))
    assert fitted == make("temperature").fit(evens) != make("temperature").fit(trace)
    assert chosen == Risk(0.05, 0.1).choose(sweep(odds, fitted), ACCURACY)
    assert fit_and_choose(make("temperature"), trace, ACCURACY, Window(1.2, 2))[0] == make("temperature").fit(trace)
    whole = Risk(0.05, 0.1).choose(sweep(trace, make("entropy")), ACCURACY)
    assert fit_and_choose(make("entropy"), trace, ACCURACY, Risk(0.05, 0.1)) == (make("entropy"), whole)


# ---------------------------------------------------------------- settings


def read(tmp_path: Any, choose: dict[str, Any], tasks: dict[str, Any] | None = None) -> Any:
    raw = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    raw["tasks"] = tasks or {"demo-sentences": raw["tasks"]["demo-sentences"]}
    raw["evaluate"]["choose"] = choose
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return load_params(path)


@pytest.mark.parametrize(
    ("choose", "chooser"),
    [
        ({}, Window(1.3, 1.96)),
        ({"rule": "window"}, Window(1.3, 1.96)),
        ({"rule": "speedup", "target": 1.5}, Speedup(1.5)),
        ({"rule": "risk", "epsilon": 0.02, "delta": 0.1}, Risk(0.02, 0.1)),
        ({"rule": "risk", "epsilon": 0.02, "bound": "crc", "loss": "brier"}, Risk(0.02, 0.0, "brier", bound="crc")),
        ({"rule": "risk", "epsilon": 0.02, "delta": 0.1, "bound": "betting"}, Risk(0.02, 0.1, bound="betting")),
        ({"rule": "online", "cost": 0.5}, Online(0.5)),
        ({"rule": "online"}, Online()),
        ({"rule": "latency", "budget_ms": 12.0, "engine": "onnx-int8"}, Latency(12.0, "onnx-int8")),
        ({"rule": "latency", "budget_ms": 12.0}, Latency(12.0)),
        (
            {"rule": "risk", "epsilon": 0.02, "delta": 0.1, "loss": "consistency", "tolerance": 0.5},
            Risk(0.02, 0.1, "consistency", 0.5),
        ),
    ],
)
def test_settings_make_the_rule(tmp_path: Any, choose: dict[str, Any], chooser: Chooser) -> None:
    evaluate = read(tmp_path, choose).evaluate
    assert make_chooser(evaluate.choose.model_dump(), evaluate.window) == chooser


@pytest.mark.parametrize(
    ("choose", "problem"),
    [
        ({"rule": "fast"}, r"evaluate\.choose\.rule: 'fast'"),
        ({"rule": "speedup"}, r"evaluate\.choose: rule 'speedup' needs target; add it"),
        ({"rule": "risk", "epsilon": 0.1}, r"evaluate\.choose: rule 'risk' needs delta; add it"),
        ({"rule": "risk", "epsilon": 0.1, "delta": 0.1, "bound": "crc"}, r"bound 'crc' has no delta; take it out"),
        ({"rule": "risk", "epsilon": 0.1, "delta": 0.1, "loss": "brier"}, r"'brier' is not 0 or 1.*betting or crc"),
        (
            {"rule": "risk", "epsilon": 0.1, "bound": "crc", "loss": "error"},
            r"choose\.loss: 'error' is of a regression",
        ),
        ({"rule": "latency"}, r"evaluate\.choose: rule 'latency' needs budget_ms; add it"),
        ({"rule": "latency", "budget_ms": 0.0}, r"evaluate\.choose\.budget_ms: 0\.0: "),
        ({"rule": "latency", "budget_ms": 1.0, "engine": "onnx"}, r"evaluate\.choose\.engine: 'onnx'"),
        ({"rule": "speedup", "target": 1.5, "engine": "pytorch"}, r"rule 'speedup' has no engine; take it out"),
        ({"rule": "window", "cost": 1.5}, r"rule 'window' has no cost"),
        ({"rule": "window", "target": 1.5}, r"evaluate\.choose: rule 'window' has no target; take it out"),
        ({"rule": "speedup", "target": 0.5}, r"evaluate\.choose\.target: 0\.5: "),
        ({"rule": "risk", "epsilon": 1.0, "delta": 0.1}, r"evaluate\.choose\.epsilon: 1\.0: "),
        ({"rule": "risk", "epsilon": 0.0, "delta": 0.1}, r"evaluate\.choose\.epsilon: 0\.0: "),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Any, choose: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParamsError, match=problem) as caught:
        read(tmp_path, choose)
    assert "\n" not in str(caught.value)


def test_a_regression_needs_a_tolerance(tmp_path: Any) -> None:
    choose = {"rule": "risk", "epsilon": 0.1, "delta": 0.1}
    tasks = {"demo-sentences": {}, "demo-similarity": {}}
    with pytest.raises(ParamsError, match=r"evaluate\.choose: rule 'risk' needs tolerance for .*'demo-similarity'"):
        read(tmp_path, choose, tasks)
    assert read(tmp_path, choose | {"tolerance": 0.5}, tasks).evaluate.choose.tolerance == 0.5
    for wrong, problem in (
        ({"rule": "online"}, r"choose\.rule: 'online' needs classes, and 'demo-similarity' is a regression"),
        (choose | {"tolerance": 0.5, "loss": "brier", "bound": "betting"}, r"choose\.loss: 'brier' needs classes"),
    ):
        with pytest.raises(ParamsError, match=problem):
            read(tmp_path, wrong, tasks)


def test_a_bound_of_one_setting_stands_there_however_fast_it_is() -> None:
    trace = made_up_trace(200)
    for chooser in (Window(1.3, 1.96), Risk(0.1, 0.1)):
        assert fit_and_choose(make("oracle"), trace, ACCURACY, chooser)[1] == Choice(1.0, True)
    _, choice = fit_and_choose(make("random"), trace, ACCURACY, Window(1.3, 1.96))
    speed = sweep(trace, make("random"), np.array([choice.threshold])).layer_speedup[0]
    assert 1.3 <= speed <= 1.96


def test_all_layers_of_a_distilled_model_are_faster_than_its_teacher_in_flops_too() -> None:
    """Six layers beside a teacher's twelve: twice the speed by layers; by FLOPs less, since both embed, and no early
    head is asked."""
    trace = replace(made_up_trace(50), full_layers=12.0)
    plain, alone = np.full(50, 20.0 + 12 + 0.5), np.full(50, 20.0 + 6 + 0.5)  # embedding, layers, one head
    with_heads = 20 + 1.5 * trace.flops
    for last, spent in ((alone, 26.5), (None, 29.0)):  # a trace that does not say it counts the early heads too
        cut = replace(trace, flops=with_heads, full_flops=plain, last_flops=last)
        group = Group("b", "joint", True, (SeedTraces(1, "k", {"selection": cut, "validation": cut}),))
        row = evaluate_group(group, {"patience": {}}, ACCURACY, Window(1.3, 1.96)).rows[0]
        assert (row.criterion, row.layer_speedup.median) == (None, 2.0)
        assert row.flop_speedup.median == round(32.5 / spent, 6)
