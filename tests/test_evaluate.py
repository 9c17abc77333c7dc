"""The evaluate stage over stored traces: rows say which rule chose, and the diagnosis stands beside them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.choosing import Risk, make_chooser
from pipeline.evaluation.criteria import make
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.group import Evaluation, evaluate_group, merged
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.point import point_of
from pipeline.evaluation.preferred import preferred
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace, save_trace
from pipeline.layout import HERE
from pipeline.params import Params
from pipeline.results import ALL_LAYERS, Choosing, Evaluated, TraceEntry, TraceIndex, curves_of, read_curves
from pipeline.storage import write_text
from stages.evaluate import main
from tests.test_choosing import made_up_trace
from tests.workspace import changed, small_params

CRITERIA: dict[str, dict[str, float]] = {"patience": {}, "temperature": {}}


def traces_of(seed: int) -> dict[str, Trace]:
    return {s: made_up_trace(300, classes=2, seed=2 * seed + i) for i, s in enumerate(("selection", "validation"))}


def entry(
    key: str, seed: int, split: str, trace: Trace, *, multi_exit: bool = True, method: str = "joint"
) -> TraceEntry:
    """The index entry of a trace of sst2, saved beside it."""
    path = HERE.trace("sst2", key, split)
    return TraceEntry(
        backbone="albert-base", method=method, multi_exit=multi_exit, seed=seed, key=key, weights_sha256="w",
        split=split, file=path.name, sha256=save_trace(trace, path), rows=trace.rows,
    )  # fmt: skip


def run_stage(
    folder: Path,
    choose: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    traces: Callable[[int], dict[str, Trace]] = traces_of,
) -> Evaluated:
    monkeypatch.chdir(folder)
    tasks = {"tasks": {"sst2": {}}, "latency.tasks": [], "attack.tasks": {}}
    raw = changed(small_params(), tasks | {"evaluate.criteria": CRITERIA, "evaluate.choose": choose})
    entries = []
    for method, multi_exit in (("joint", True), ("single_exit", False)):
        for seed in (1, 2):
            for split, trace in traces(seed).items():
                last = replace(trace, logits=trace.logits[:, -1:], layers=trace.layers[-1:], flops=trace.flops[:, -1:])
                kept = trace if multi_exit else last
                entries.append(entry(f"{method}{seed}", seed, split, kept, multi_exit=multi_exit, method=method))
    TraceIndex(task="sst2", traces=tuple(entries), unlabelled=()).write(HERE.trace_index("sst2"))
    logged: list[tuple[Any, ...]] = []
    stage: Any = SimpleNamespace(
        params=Params.model_validate(raw),
        instance="sst2",
        write=lambda path, result: result.write(path),
        write_text=write_text,
        log_row=lambda settings, metrics, keys, by_layer: logged.append((settings, metrics, keys, by_layer)),
    )
    shown: list[Evaluated] = []
    monkeypatch.setattr("stages.evaluate.show_selected", lambda stage, evaluated, runs: shown.append(evaluated))
    main(stage)
    assert len(shown) == 1
    settings, metrics, keys, by_layer = next(row for row in logged if row[0]["criterion"] == "patience")
    assert (settings["backbone"], settings["method"], settings["split"]) == ("albert-base", "joint", "validation")
    assert metrics.keys() == {"score", "score_low", "score_high", "layer_speedup", "flop_speedup"}
    assert keys == ("joint1", "joint2")
    assert list(by_layer) == list(range(1, len(by_layer) + 1))
    return Evaluated.read(HERE.evaluated("sst2"), "run evaluate")


def test_risk_is_chosen_on_selection_rows_and_measured_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = {"rule": "risk", "epsilon": 0.1, "delta": 0.1}
    stored = run_stage(tmp_path, choose, monkeypatch)
    assert stored.choosing.model_dump(exclude_none=True) == choose | {"window": (1.3, 1.96)}
    assert {row.rule for row in stored.rows} == {"risk"}
    row = next(row for row in stored.rows if row.criterion == "patience")
    assert row.risk is not None
    chooser = Risk(0.1, 0.1)
    for i, seed in enumerate((1, 2)):
        selection, report = traces_of(seed).values()
        chosen = chooser.choose(sweep(selection, make("patience")), ("accuracy",))
        assert chosen.in_window
        assert row.points[i] == point_of(make("patience"), {}, chosen.threshold)
        point = sweep(report, make("patience"), np.array([chosen.threshold]))
        assert row.risk.values[i] == pytest.approx(float(chooser.risk(point)[0]), abs=1e-6)
        found = stored.diagnosis[i]
        assert (found.seed, found.key, found.split) == (seed, f"joint{seed}", "validation")
        assert found.criteria[0].lost is not None
        assert found.criteria[0].lost.share == row.risk.values[i]
    assert [row.risk and row.risk.values for row in stored.rows if row.criterion is None] == [(0, 0), (0, 0)]
    assert [(one.method, one.seed, len(one.criteria)) for one in stored.diagnosis] == [
        ("joint", 1, 2), ("joint", 2, 2), ("single_exit", 1, 0), ("single_exit", 2, 0)
    ]  # fmt: skip


def test_a_model_that_has_learned_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unrelated(seed: int) -> dict[str, Trace]:
        shuffled = np.random.default_rng(0).permutation
        return {split: replace(trace, labels=shuffled(trace.labels)) for split, trace in traces_of(seed).items()}

    run_stage(tmp_path, {}, monkeypatch)
    assert "one answer" not in capsys.readouterr().out
    run_stage(tmp_path, {}, monkeypatch, unrelated)
    out = capsys.readouterr().out
    same = "no better than one answer for every row of validation"
    for method in ("joint", "single_exit"):
        line = f"sst2: albert-base/{method} has learned nothing: with all layers it is {same}; it needs more rows"
        assert line in out
    run_stage(tmp_path, {}, monkeypatch, lambda seed: unrelated(seed) if seed == 2 else traces_of(seed))
    out = capsys.readouterr().out
    assert "learned nothing" not in out
    for method in ("joint", "single_exit"):
        assert f"sst2: albert-base/{method}: with all layers, seed 2 is {same}\n" in out


def test_the_window_stays_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = run_stage(tmp_path, {}, monkeypatch)
    assert (stored.choosing.rule, stored.choosing.window) == ("window", (1.3, 1.96))
    for row in stored.rows:
        assert (row.rule, row.risk, row.in_window) == ("window", None, True)
        assert row.criterion is None or 1.2 < (row.layer_speedup.median or 0) < 2.1
    curves = read_curves(HERE.curves("sst2"), stored, "run evaluate")
    assert {(point.criterion, point.seed, point.split) for point in curves} == {
        (criterion, seed, split) for criterion in CRITERIA for seed in (1, 2) for split in ("selection", "validation")
    }
    assert sum(point.threshold == np.inf for point in curves) == 8


def test_a_row_has_a_point_for_each_trial(tmp_path: Path) -> None:
    group = Group("a", "joint", True, tuple(SeedTraces(seed, f"key{seed}", traces_of(seed)) for seed in (1, 2)))
    full, row = evaluate_group(group, {"temperature": {}}, ("accuracy",), make_chooser({"rule": "window"}, (1, 2))).rows
    assert (full.criterion, full.points) == (None, (ALL_LAYERS, ALL_LAYERS))
    for member in group.seeds:
        fitted = make("temperature").fit(member.traces["selection"])
        assert row.point(member.key) == point_of(fitted, {}, row.point(member.key).limit)
    assert row.point("key1") != row.point("key2")


def test_each_group_prefers_one_rule_by_its_selection_rows(tmp_path: Path) -> None:
    criteria = CRITERIA | {"confidence": {}, "fixed": {}, "oracle": {}}
    group = Group("a", "joint", True, tuple(SeedTraces(seed, f"key{seed}", traces_of(seed)) for seed in (1, 2)))
    found = evaluate_group(group, criteria, ("accuracy",), make_chooser({"rule": "window"}, (1.3, 1.96)))
    (best,) = [row for row in found.rows if row.preferred]
    assert preferred(found.rows, [*curves_of(found.curves)], "validation") is best
    assert best.criterion in ("patience", "temperature", "confidence"), "fixed leaves nobody early, oracle cannot run"
    single = replace(group, multi_exit=False)
    alone = evaluate_group(single, criteria, ("accuracy",), make_chooser({"rule": "window"}, (1.3, 1.96)))
    assert not any(row.preferred for row in alone.rows)
    every = tuple(row.model_copy(update={"preferred": True}) for row in found.rows)
    choosing = Choosing(rule="window", window=(1.3, 1.96))
    kind: dict[str, Any] = {"modality": "text", "kind": "classification", "protocol": "holdout"}
    with pytest.raises(ValueError, match="rows: preferred"):
        Evaluated(task="t", **kind, metrics=("accuracy",), choosing=choosing, rows=every, exits=(), diagnosis=())


def test_under_the_papers_protocol_the_report_split_chose(tmp_path: Path) -> None:
    group = Group("a", "joint", True, (SeedTraces(1, "key", traces_of(1)),))
    chooser = make_chooser({"rule": "window"}, (1, 2))
    for protocol, split in (("holdout", "selection"), ("paper", "validation")):
        found = evaluate_group(group, CRITERIA, ("accuracy",), chooser, protocol)  # type: ignore[arg-type]
        assert {row.selected_on for row in found.rows} == {split}


def test_the_diagnosis_is_of_the_chosen_points(tmp_path: Path) -> None:
    chooser = make_chooser({"rule": "speedup", "target": 1.5}, (1, 2))
    seeds = (SeedTraces(7, "key", traces_of(7)),)
    groups = [Group("b", method, multi_exit, seeds) for method, multi_exit in (("many", True), ("one", False))]
    found = merged(evaluate_group(group, CRITERIA, ("accuracy",), chooser) for group in groups)
    assert isinstance(found, Evaluation)
    assert [row.method for row in found.rows] == ["many", "many", "many", "one"]
    diagnosis, plain = found.diagnosis
    assert (plain.method, plain.criteria) == ("one", ())
    about = {"backbone": "b", "method": "many", "split": "validation", "seed": 7, "key": "key"}
    points = [row.points[0] for row in found.rows[1:3]]
    expected = diagnose(seeds[0].traces["validation"], ("accuracy",), points)
    assert diagnosis.model_dump() == expected.model_dump() | about
    assert [point.criterion for point in points] == ["patience", "temperature"]
    assert points[1].fitted["temperatures"] == list(make("temperature").fit(seeds[0].traces["selection"]).temperatures)  # type: ignore[attr-defined]
