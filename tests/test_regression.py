"""Stored metrics against fresh ones: what has moved is named, what has not is not, timings are not looked at."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.__main__ import cli
from pipeline.commands.compare_metrics import TOLERANCES, collect, differences, read_stored
from pipeline.errors import ArtifactError
from pipeline.identity.imports import ROOT
from tests.stored_results import params_for, write_all

TASKS = {"demo-sentences": {"rows": {"train": 100, "selection": 80, "report": 80}}}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "outputs"
    write_all(folder, params_for(TASKS, "demo-albert"))
    return folder


def compare(stored: Path, outputs: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["compare-metrics", str(stored), str(outputs), *options])


def test_same_results_pass_and_every_kind_is_there(outputs: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    assert compare(stored, outputs, "--write").exit_code == 0
    assert read_stored(stored) == collect(outputs)
    assert all(collect(outputs)[kind] for kind in TOLERANCES)
    done = compare(stored, outputs)
    assert (done.exit_code, done.output.count("\n")) == (0, 1)
    assert done.output.startswith("0 of ")


def test_tolerance_is_per_kind() -> None:
    for kind, tolerance in TOLERANCES.items():
        empty = {name: {} for name in TOLERANCES}
        stored = {**empty, kind: {"one": 0.5, "two": 0.5, "three": 0.5}}
        fresh = {
            **empty,
            kind: {"one": 0.5 + 0.99 * tolerance, "two": 0.5 - 1.01 * tolerance, "three": 0.5, "new": 9.0},
        }
        (line,) = differences(stored, fresh)
        assert line.startswith("two: 0.5 -> ")
        assert f"tolerance {tolerance}" in line


def test_gone_undefined_and_not_a_number() -> None:
    empty = {name: {} for name in TOLERANCES}
    stored = {**empty, "score": {"gone": 0.5, "lost": 0.5, "same": None, "found": None, "nan": 0.5}}
    fresh = {**empty, "score": {"lost": None, "same": None, "found": 0.5, "nan": float("nan")}}
    assert [line.partition(":")[0] for line in differences(stored, fresh)] == ["gone", "lost", "found", "nan"]


def test_a_moved_score_is_named_and_a_moved_timing_is_not(outputs: Path, tmp_path: Path) -> None:
    stored, fresh = tmp_path / "stored.json", tmp_path / "outputs"
    compare(stored, outputs, "--write")
    shutil.copytree(outputs, fresh)
    timed = fresh / "latency" / "demo-sentences.json"
    timed.write_text(timed.read_text().replace('"ms_per_example": ', '"ms_per_example": 9'))
    assert compare(stored, fresh).exit_code == 0
    path = fresh / "evaluate" / "demo-sentences.json"
    result = json.loads(path.read_text())
    row = next(row for row in result["rows"] if row["criterion"] == "confidence")
    row["score"]["median"] -= 0.2
    path.write_text(json.dumps(result))
    done = compare(stored, fresh)
    assert done.exit_code == 1
    first, last = done.output.splitlines()
    assert first.startswith(f"demo-sentences/demo-albert/{row['method']}/confidence/{row['split']}/score: ")
    assert last.startswith("1 of ")


def test_files_that_cannot_be_compared(outputs: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    with pytest.raises(ArtifactError, match=r"no such file; write it from a finished demo with .*--write"):
        read_stored(stored)
    stored.write_text('{"schema": 1, "metrics": {"speed": {"one": 1.0}}}')
    with pytest.raises(ArtifactError, match=r"kinds of metrics \['speed'\]"):
        read_stored(stored)
    with pytest.raises(ArtifactError, match="holds no results; run `dvc repro`"):
        collect(tmp_path)
    partial = tmp_path / "partial"
    shutil.copytree(outputs / "evaluate", partial / "evaluate")
    with pytest.raises(ArtifactError, match=r"cifar\.json: no such file; run `dvc repro`"):
        collect(partial)


def test_stored_demo_can_be_read() -> None:
    metrics = read_stored(ROOT / "docs" / "demo-metrics.json")
    assert differences(metrics, copy.deepcopy(metrics)) == []


def test_workflows_run_what_exists() -> None:
    steps = {}
    for name in ("tests", "nightly"):
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
        (job,) = workflow["jobs"].values()
        steps[name] = [step["run"] for step in job["steps"] if "run" in step]
        assert workflow[True]  # `on`, which YAML 1.1 reads as a truth value
        assert workflow["permissions"] == {"contents": "read"}
    assert steps["tests"] == [".ci/run"]
    assert (ROOT / ".ci" / "run").is_file()
    demo, compared = steps["nightly"]
    assert demo == "make demo"
    assert compared == ".venv/bin/python -m pipeline compare-metrics docs/demo-metrics.json outputs"
    assert (ROOT / "docs" / "demo-metrics.json").is_file()
