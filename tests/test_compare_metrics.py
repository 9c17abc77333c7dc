"""Stored metrics against fresh ones: what has moved is named, what has not is not, timings are not looked at."""

import copy
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.__main__ import cli
from pipeline.commands.compare_metrics import TOLERANCES, collect, differences, of_models, read_stored
from pipeline.errors import ArtifactError, PipelineError
from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.results import Curve, CurvePoint, Evaluated, StoredMetrics, curves_text, read_curves
from pipeline.results.metrics import Kind
from pipeline.storage import write_text
from tests.stored_results import params_for, write_all

TASKS = {"demo-sentences": {"rows": {"train": 100, "selection": 80, "report": 80}}, "demo-pairs": {}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("run"))
    write_all(workspace, params_for(TASKS, "demo-albert"))
    return workspace


def compare(stored: Path, run: Workspace, *options: str) -> Result:
    return CliRunner().invoke(cli, ["compare-metrics", str(stored), str(run.root), *options])


def metrics_of(kind: Kind, values: dict[str, float | None]) -> StoredMetrics:
    return StoredMetrics.model_construct(metrics={kind: values})  # a NaN is none of what a file may hold


def test_same_results_pass_and_every_kind_is_there(run: Workspace, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    assert compare(stored, run, "--write").exit_code == 0
    assert read_stored(stored) == collect(run)
    assert all(collect(run).metrics[kind] for kind in TOLERANCES)
    done = compare(stored, run, "--exact")
    assert (done.exit_code, done.output.count("\n")) == (0, 1)
    assert done.output.startswith("0 of ")


def test_names_say_task_model_split_and_criterion(run: Workspace) -> None:
    metrics = collect(run).metrics
    assert "demo-sentences/demo-albert/single_exit/validation/score" in metrics["score"]
    assert "demo-sentences/demo-albert/joint/validation/exits" in metrics["exits"]
    assert "demo-sentences/demo-albert/joint/validation/patience/gain" in metrics["gain"]
    assert not any("single_exit" in name for kind in ("exits", "gain") for name in metrics[kind])
    assert "demo-sentences/attack/single exit/pooled_accuracy" in metrics["accuracy"]
    assert not any(name.startswith("demo-pairs") for name in metrics["accuracy"])  # not attacked


def test_the_gain_of_a_criterion_is_over_leaving_at_a_fixed_layer(run: Workspace) -> None:
    """The criterion `fixed` gains nothing, at any speed; a curve that lies higher by so much gains so much."""
    results = Evaluated.read(run.evaluated("demo-sentences"), "")
    curves = []
    for entry in (entry for entry in results.exits if entry.split == "validation" and len(entry.layers) > 1):
        for criterion, more in (("fixed", 0.0), ("better", 0.03)):
            place = (entry.backbone, entry.method, criterion, entry.seed, entry.split)
            points = []
            for layer, score in zip(entry.layers, entry.scores, strict=True):
                assert score is not None
                points.append(CurvePoint(*place, layer, score + more, entry.layers[-1] / layer, 1.0))
            curves.append(Curve(*place, tuple(points)))
    gains = {name: value for kind, name, value in of_models("t", results, curves) if kind == "gain"}
    assert gains["t/demo-albert/joint/validation/fixed/gain"] == pytest.approx(0.0)
    assert gains["t/demo-albert/joint/validation/better/gain"] == pytest.approx(0.03)


def test_the_smallest_move_is_named_by_exact_alone(run: Workspace, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    metrics = collect(run).metrics
    name, value = next((name, value) for name, value in metrics["score"].items() if value)
    StoredMetrics(metrics=metrics | {"score": metrics["score"] | {name: value * (1 + 2**-52)}}).write(stored)
    assert compare(stored, run).exit_code == 0
    done = compare(stored, run, "--exact")
    assert (done.exit_code, done.output.splitlines()[0].split(": ")[0]) == (1, name)


def test_tolerance_is_per_kind() -> None:
    for kind, tolerance in TOLERANCES.items():
        stored = metrics_of(kind, {"one": 0.5, "two": 0.5, "three": 0.5})
        now = {"one": 0.5 + 0.99 * tolerance, "two": 0.5 - 1.01 * tolerance, "three": 0.5, "new": 9.0}
        line = str(*differences(stored, metrics_of(kind, now)))
        assert line.startswith("two: 0.5 -> ")
        assert f"tolerance {tolerance}" in line
        assert [move.name for move in differences(stored, metrics_of(kind, now), exact=True)] == [
            "one",
            "two",
        ]


def test_gone_undefined_and_not_a_number() -> None:
    stored = metrics_of("score", {"gone": 0.5, "lost": 0.5, "same": None, "found": None, "nan": 0.5})
    fresh = metrics_of("score", {"lost": None, "same": None, "found": 0.5, "nan": float("nan")})
    assert [move.name for move in differences(stored, fresh)] == ["gone", "lost", "found", "nan"]


def test_a_moved_score_is_named_and_a_moved_timing_is_not(run: Workspace, tmp_path: Path) -> None:
    stored, fresh = tmp_path / "stored.json", Workspace(tmp_path / "fresh")
    compare(stored, run, "--write")
    shutil.copytree(run.root, fresh.root)
    timed = fresh.latency("demo-sentences")
    timed.write_text(timed.read_text().replace('"ms_per_example": ', '"ms_per_example": 9'))
    assert compare(stored, fresh).exit_code == 0
    # A threshold one step away, as on another processor, moves the row but no curve and no exit.
    path = fresh.evaluated("demo-sentences")
    result = json.loads(path.read_text())
    row = next(row for row in result["rows"] if row["points"][0]["criterion"] == "confidence")
    score = row["score"]
    score |= {name: score[name] - 0.2 for name in ("median", "low", "high")}
    score["values"] = [value - 0.2 for value in score["values"]]
    path.write_text(json.dumps(result))
    assert compare(stored, fresh).exit_code == 0
    # A criterion whose curve falls is named.
    path = fresh.curves("demo-sentences")
    points = [
        point._replace(score=point.score - 0.1) if point.criterion == "confidence" else point
        for point in read_curves(path, Evaluated.read(fresh.evaluated("demo-sentences"), ""), "")
    ]
    write_text(path, curves_text(points))
    done = compare(stored, fresh)
    assert done.exit_code == 1
    *moved, last = done.output.splitlines()
    assert all("/confidence/gain: " in line for line in moved)
    assert last.startswith(f"{len(moved)} of ")


def test_a_place_that_cannot_be_written_is_one_line(run: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "file/stored.json", "cannot be written")):
        done = compare(place, run, "--write")
        assert isinstance(done.exception, PipelineError)
        assert str(done.exception).startswith(f"compare-metrics --write {place}: {said}")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_files_that_cannot_be_compared(run: Workspace, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    with pytest.raises(ArtifactError, match=r"no such file; write it from a finished demo with .*--write"):
        read_stored(stored)
    stored.write_text('{"schema": 3, "metrics": {"speed": {"one": 1.0}}}')
    with pytest.raises(ArtifactError, match=r"metrics\.speed.*'score'.*--write"):
        read_stored(stored)
    stored.write_text('{"schema": 3, "metrics": {"score": {}}}')
    with pytest.raises(ArtifactError, match="holds no metrics; write it"):
        read_stored(stored)
    with pytest.raises(ArtifactError, match=r"evaluate.*: no such file; run `dvc repro`"):
        collect(Workspace(tmp_path))
    partial = Workspace(tmp_path / "partial")
    shutil.copytree(run.evaluated("x").parent, partial.evaluated("x").parent)
    with pytest.raises(ArtifactError, match=r"simulate\.json: no such file; run `dvc repro`"):
        collect(partial)


def test_stored_demo_can_be_read() -> None:
    metrics = read_stored(ROOT / "docs" / "demo-metrics.json")
    assert differences(metrics, copy.deepcopy(metrics)) == []
