"""The evaluate stage over stored traces: rows say which rule chose, and the diagnosis stands beside them."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.choosing import Risk, make_rule
from pipeline.evaluation.criteria import make
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.group import Evaluation, Seeded, evaluate_group, merged
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace, save_trace
from pipeline.params import Params
from pipeline.storage import write_json, write_text
from stages.evaluate import main
from tests.stored_results import params_for
from tests.test_choosing import made_up_trace

CRITERIA: dict[str, dict[str, float]] = {"patience": {}, "temperature": {}}


def traces_of(seed: int) -> dict[str, Trace]:
    return {s: made_up_trace(300, classes=2, seed=2 * seed + i) for i, s in enumerate(("selection", "validation"))}


def run_stage(folder: Path, choose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    raw = params_for({"sst2": {}}, "albert-base", methods=["joint", "single_exit"]).model_dump(mode="json")
    raw["evaluate"] |= {"criteria": CRITERIA, "choose": choose}
    entries = []
    for method, multi_exit in (("joint", True), ("single_exit", False)):
        for seed in (1, 2):
            for split, trace in traces_of(seed).items():
                last = replace(trace, logits=trace.logits[:, -1:], layers=trace.layers[-1:], flops=trace.flops[:, -1:])
                file = f"{method}{seed}.{split}.safetensors"
                save_trace(trace if multi_exit else last, Path("outputs/traces/sst2") / file)
                about = {"backbone": "albert-base", "method": method, "multi_exit": multi_exit}
                entries.append(about | {"seed": seed, "key": f"{method}{seed}", "split": split, "file": file})
    write_json(Path("outputs/traces/sst2/index.json"), {"schema": 1, "traces": entries, "unlabelled": []})
    logged: dict[str, float] = {}
    stage: Any = SimpleNamespace(
        params=Params.model_validate(raw),
        instance="sst2",
        write_json=lambda path, payload: write_json(Path(path), payload),
        write_text=lambda path, text: write_text(Path(path), text),
        log_metrics=logged.update,
    )
    main(stage)
    assert "albert-base.joint.patience.validation.score" in logged
    return dict(json.loads(Path("outputs/evaluate/sst2.json").read_text(encoding="utf-8")))


def test_risk_is_chosen_on_selection_rows_and_measured_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = {"rule": "risk", "epsilon": 0.1, "delta": 0.1}
    stored = run_stage(tmp_path, choose, monkeypatch)
    assert {name: stored["choose"][name] for name in choose} == choose
    assert {row["rule"] for row in stored["rows"]} == {"risk"}
    row = next(row for row in stored["rows"] if row["criterion"] == "patience")
    rule = Risk(0.1, 0.1)
    for i, seed in enumerate((1, 2)):
        selection, report = traces_of(seed).values()
        chosen = rule.choose(sweep(selection, make("patience")), ("accuracy",))
        assert chosen.in_window
        assert row["thresholds"][i] == chosen.threshold
        point = sweep(report, make("patience"), np.array([chosen.threshold]))
        assert row["risk"]["values"][i] == pytest.approx(float(rule.risk(point)[0]), abs=1e-6)
        found = stored["diagnosis"][i]
        assert (found["seed"], found["key"], found["split"]) == (seed, f"joint{seed}", "validation")
        assert found["criteria"][0]["lost"]["share"] == row["risk"]["values"][i]
    assert [row["risk"]["values"] for row in stored["rows"] if row["criterion"] is None] == [[0, 0], [0, 0]]
    assert len(stored["diagnosis"]) == 2  # the single exit has nothing to diagnose


def test_the_window_stays_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = run_stage(tmp_path, {}, monkeypatch)
    assert (stored["choose"]["rule"], stored["window"]) == ("window", [1.3, 1.96])
    for row in stored["rows"]:
        assert (row["rule"], row["risk"], row["in_window"]) == ("window", None, True)
        assert row["criterion"] is None or 1.2 < row["layer_speedup"]["median"] < 2.1


def test_the_diagnosis_is_of_the_chosen_points(tmp_path: Path) -> None:
    seeds = [Seeded(7, "key", traces_of(7))]
    parts = [
        evaluate_group(
            {"method": method}, seeds, criteria, ("accuracy",), make_rule({"rule": "speedup", "target": 1.5}, (1, 2)),
            report_splits=["validation"], selected_on="selection",
        )
        for method, criteria in (("a", CRITERIA), ("b", {}))
    ]  # fmt: skip
    found = merged(parts)
    assert isinstance(found, Evaluation)
    assert [row["method"] for row in found.rows] == ["a", "a", "a", "b"]
    (diagnosis,) = found.diagnosis
    selection, report = seeds[0].traces.values()
    fitted = make("temperature").fit(selection)
    points = {"patience": (make("patience"), found.rows[1]["thresholds"][0])}
    points["temperature"] = fitted, found.rows[2]["thresholds"][0]
    assert diagnosis == {"method": "a", "split": "validation", "seed": 7, "key": "key"} | diagnose(
        report, ("accuracy",), points
    )
