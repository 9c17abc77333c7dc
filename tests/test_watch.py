"""The watch over a served model: what it counts, when it warns, and what its cap on extra cost does."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.evaluation.asked import FULL
from pipeline.evaluation.leaving import Rule
from pipeline.models.deploy.runtime import Deployed
from pipeline.serving.drift import BETS, Drift, bets
from pipeline.serving.metrics import merged
from pipeline.serving.settings import WatchSettings
from pipeline.serving.watch import PromiseWatch
from tests.exported_folders import texts

SHARES = np.array([0.02, 0.05, 0.3, 0.25, 0.18, 0.1, 0.06, 0.04])


class Clock:
    """Seconds, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def numbers(watch: PromiseWatch, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by its labels, in the order of their names, as a Prometheus server reads them."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(watch.metrics())
        for sample in family.samples
        if sample.name == f"early_exit_{name}"
    }


# Drift


def test_bets_win_nothing_on_average() -> None:
    ranks = (np.arange(10_000) + 0.5) / 10_000
    returns = np.array([bets(rank) for rank in ranks])
    assert returns.shape == (10_000, BETS)
    np.testing.assert_allclose(returns.mean(axis=0), 1.0, atol=1e-9)
    assert (returns >= 0).all()


def false_alarms(selection: int, alarm: float, windows: int, rows: int) -> float:
    """Share of windows with an alarm, where served rows are like the selection rows, asked after each row."""
    random, raised = np.random.default_rng(0), 0
    for seed in range(windows):
        drift = Drift(random.multinomial(selection, SHARES), alarm, rows, seed)
        raised += any(drift.see(index) for index in random.choice(len(SHARES), rows, p=SHARES).tolist())
    return raised / windows


@pytest.mark.parametrize("selection", [30, 300])
def test_false_alarms_are_as_rare_as_it_says(selection: int) -> None:
    """Also with few selection rows, whose histogram is far from the rows' own, and with a look after each row."""
    windows, alarm = 250, 0.2
    share = false_alarms(selection, alarm, windows, rows=120)
    assert 0 < share <= alarm + 2 * np.sqrt(alarm * (1 - alarm) / windows)


@pytest.mark.parametrize(("to_the_end", "within", "share"), [(1.0, 10, 0.9), (0.5, 40, 0.9), (0.2, 200, 0.5)])
def test_rows_that_run_to_the_end_raise_the_alarm(to_the_end: float, within: int, share: float) -> None:
    """After 100 rows as promised: in this share of cases within so many rows."""
    random, needed = np.random.default_rng(1), []
    mixed = (1 - to_the_end) * SHARES + to_the_end * np.eye(len(SHARES))[-1]
    for seed in range(20):
        drift = Drift(random.multinomial(300, SHARES), seed=seed)
        assert not any(drift.see(index) for index in random.choice(len(SHARES), 100, p=SHARES).tolist())
        after = random.choice(len(SHARES), 800, p=mixed).tolist()
        needed.append(next((at for at, index in enumerate(after, 1) if drift.see(index)), 800))
    assert np.quantile(needed, share) <= within


def test_rows_that_leave_early_raise_it_too_and_a_quiet_window_ends_it() -> None:
    drift = Drift([10, 10, 40, 30, 10], window=200)
    assert any(drift.see(0) for _ in range(20))
    assert drift.raised
    assert drift.alarms == 1
    quiet = np.random.default_rng(0).choice(5, 600, p=[0.1, 0.1, 0.4, 0.3, 0.1]).tolist()
    assert not any(drift.see(index) for index in quiet)
    assert not drift.raised


# A served model


@pytest.fixture(scope="module")
def model(texts_model: Path) -> Deployed:
    return Deployed.open(texts_model)


def watched(model: Deployed, **settings: Any) -> PromiseWatch:
    return PromiseWatch(model, WatchSettings(**settings))


def rule_of(model: Deployed, criterion: str = "patience", threshold: float | None = None) -> Rule:
    return model.segments.rule(*model.criterion(criterion, threshold))


def serve(
    watch: PromiseWatch, model: Deployed, rows: list[str], criterion: str, threshold: float | None = None
) -> None:
    """Answer rows as a server does: one after another, some of them to the end."""
    rule = rule_of(model, criterion, threshold)
    leaving = model.segments.answer(model.inputs(rows), rule)
    last = model.segments.answer(model.inputs(rows), model.segments.rule(None, np.inf)).logits
    for index, logits, end in zip(leaving.exit_index.tolist(), leaving.logits, last, strict=True):
        if watch.answered(criterion, rule, index):
            watch.compared(criterion, index, logits, end)


def slow(model: Deployed, criterion: str) -> list[str]:
    """Texts that run all layers, found by asking."""
    rows = texts(600, seed=5)
    last = len(model.segments.exits)
    return [row for row, answer in zip(rows, model.answer(rows, criterion), strict=True) if answer.exit == last]


@pytest.mark.parametrize("criterion", ["patience", "confidence"])
def test_texts_that_run_all_layers_are_seen_and_others_are_not(
    model: Deployed, criterion: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watched(model)
    with caplog.at_level(logging.WARNING):
        serve(watch, model, texts(1500, seed=4), criterion)
    assert not caplog.records
    assert numbers(watch, "drift")[(criterion,)] == 0
    attack = slow(model, criterion)
    assert len(attack) >= 20, "the model has such rows"
    with caplog.at_level(logging.WARNING):
        serve(watch, model, attack[:20] * 6, criterion)
    assert numbers(watch, "drift")[(criterion,)] == 1
    assert numbers(watch, "drift_alarms_total")[(criterion,)] >= 1
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"drift at criterion {criterion}: the last ")
    assert "\n" not in said


def test_it_counts_exits_and_differences_from_the_last_exit(model: Deployed) -> None:
    watch, rows = watched(model, check_share=1.0), texts(80, seed=6)
    serve(watch, model, rows, "patience")
    answers, full = model.answer(rows, "patience"), model.answer(rows, FULL)
    counted = numbers(watch, "rows_total")
    for exit_number in {answer.exit for answer in answers}:
        expected = sum(answer.exit == exit_number for answer in answers)
        assert counted[("patience", str(exit_number), "exported")] == expected
    assert sum(counted.values()) == len(rows)
    assert numbers(watch, "checked_rows_total")[("patience",)] == len(rows)
    different = sum(one.label != other.label for one, other in zip(answers, full, strict=True))
    assert numbers(watch, "difference_total")[("patience",)] == different > 0
    promised = numbers(watch, "promised_share")
    assert sum(value for (criterion, _), value in promised.items() if criterion == "patience") == pytest.approx(1)


def test_a_share_of_rows_runs_to_the_end(model: Deployed) -> None:
    watch = watched(model, check_share=0.1)
    rule, other = rule_of(model), rule_of(model, threshold=2)
    going = sum(watch.answered("patience", rule, 1) for _ in range(2000))
    assert 140 < going < 260
    assert not any(watch.answered("patience", other, 1) for _ in range(200)), "no promise, so nothing to compare"
    none = watched(model, check_share=0.0)
    assert not any(none.answered("patience", rule, 1) for _ in range(200))


def test_a_threshold_of_a_request_is_counted_and_not_watched(model: Deployed) -> None:
    watch = watched(model)
    serve(watch, model, texts(300, seed=7), "confidence", threshold=2.0)
    serve(watch, model, texts(100, seed=8), FULL)
    counted = numbers(watch, "rows_total")
    last = str(len(model.segments.exits))
    assert counted == {("confidence", last, "request"): 300, (FULL, last, "request"): 100}
    assert set(numbers(watch, "drift").values()) == {0}
    assert set(numbers(watch, "drift_stake").values()) == {1}


# The cap


@pytest.fixture
def capped(model: Deployed) -> tuple[PromiseWatch, Clock]:
    clock = Clock()
    settings = WatchSettings(extra_layers_per_minute=20, check_share=0)
    return PromiseWatch(model, settings, clock=clock), clock


def test_a_cap_holds_until_the_minute_has_passed(model: Deployed, capped: tuple[PromiseWatch, Clock]) -> None:
    watch, clock = capped
    rule, exits = rule_of(model), model.segments.exits
    point = watch.points["patience"]
    assert exits[point.deepest] <= point.layers < exits[point.deepest + 1]
    deepest, layers = [], 0.0
    for second in range(59):
        clock.now = float(second)
        deepest.append(watch.deepest("patience", rule))
        index = len(exits) - 1 if deepest[-1] is None else deepest[-1]
        watch.answered("patience", rule.within(index), index)
        layers += exits[index] - point.layers
    assert None in deepest
    assert point.deepest in deepest
    assert layers <= 20 + exits[-1] - point.layers, "no more than the cap, and the row in flight"
    assert numbers(watch, "capped_rows_total")[("patience",)] == sum(one is not None for one in deepest) > 0
    assert numbers(watch, "extra_layers")[()] == pytest.approx(layers)
    for _ in range(3):
        watch.answered("patience", rule, len(exits) - 1)
    assert watch.deepest(FULL, rule_of(model, FULL)) == point.deepest, "held against the default's promise"
    clock.now = 200.0
    assert watch.deepest("patience", rule) is None
    assert numbers(watch, "extra_layers")[()] == 0


def test_rows_as_promised_meet_no_cap_and_none_is_set_by_default(model: Deployed) -> None:
    rule = rule_of(model)
    watch = watched(model)
    for _ in range(500):
        watch.answered("patience", rule, 3)
    assert watch.deepest("patience", rule) is None
    clock = Clock()
    settings = WatchSettings(extra_layers_per_minute=60)
    fair = PromiseWatch(model, settings, clock=clock)
    for answer in model.answer(texts(400, seed=4), "patience"):
        clock.now += 0.1
        fair.answered("patience", rule, answer.exit - 1)
        assert fair.deepest("patience", rule) is None


# Several replicas


def test_each_replica_keeps_its_numbers_on_one_page(model: Deployed) -> None:
    rule, texts_of = rule_of(model), {}
    for name, rows in (("a", 3), ("b", 5)):
        watch = watched(model)
        for _ in range(rows):
            watch.answered("patience", rule, 1)
        watch.request(200, 0.01)
        texts_of[name] = watch.metrics()
    page = merged(texts_of)
    families = {family.name: family for family in text_string_to_metric_families(page)}
    rows_by_replica = {
        sample.labels["replica"]: sample.value
        for sample in families["early_exit_rows"].samples
        if sample.name == "early_exit_rows_total"
    }
    assert rows_by_replica == {"a": 3, "b": 5}
    assert page.count("# TYPE early_exit_request_seconds histogram") == 1
    assert families["early_exit_request_seconds"].type == "histogram"
    assert {"early_exit_drift", "early_exit_promised_share"} <= set(families)
