"""Latency: the live engine at the operating points that evaluate chose, and a task that is not timed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ArtifactError, UnsupportedError
from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.point import point_of, sweep_at
from pipeline.evaluation.trace import Trace, load_trace
from pipeline.layout import HERE
from pipeline.models.deploy.recording import record
from pipeline.models.deploy.runtime import Deployed
from pipeline.models.deployments import deployments, refuse_engines, refuse_threads
from pipeline.models.device import cores
from pipeline.models.encoders.encoder import Encoder, build_encoder
from pipeline.models.latency import Timing
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.packed import ready
from pipeline.models.recording import record as record_in_torch
from pipeline.models.residual import ResNet
from pipeline.models.roof import MatrixRate, products_of
from pipeline.params import Params, load_params
from pipeline.results import ALL_LAYERS, Evaluated, Exported, Latency, LatencyRow, Measured, Memory, Reached, Selected
from pipeline.results.latency import RunsIn
from pipeline.running.mlflow.tracker import Tracker
from pipeline.tasks.stores import manifest_of, open_store
from pipeline.tasks.text.tokens import collate
from stages.latency import unsteady
from tests.chain import chain_model
from tests.replayed import check_replayed_in_bf16, residual_model
from tests.selections import evaluate_untrained, save_model, select
from tests.test_backbones import centre, config_of, rows
from tests.workspace import Workspace

TASK = "demo-sentences"


@pytest.mark.parametrize("name", [name for name, criterion in CRITERIA.items() if criterion.causal])
def test_the_live_engine_at_a_point_decides_as_replay_at_it(name: str) -> None:
    model = chain_model(3)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32))
    with torch.inference_mode():
        logits, channels = model.record({"x": x}, {"lte": None})
    rows, exits = logits.shape[:2]
    depth = np.arange(1.0, exits + 1)
    trace = Trace(
        "classification", logits.numpy(), np.zeros(rows), np.arange(rows), depth, np.tile(depth, (rows, 1)),
        np.full(rows, float(exits)), channels={name: values.numpy() for name, values in channels.items()},
    )  # fmt: skip
    fitted = make(name).fit(trace)
    thresholds = fitted.thresholds(exits, 3)
    for point in (ALL_LAYERS, *(point_of(fitted, {}, at) for at in thresholds[:: max(1, len(thresholds) // 5)])):
        answers, swept = LiveEngine.at(model, point)({"x": x}), sweep_at(trace, point)
        np.testing.assert_array_equal(answers.exit_index, swept.exit_index[0])
        np.testing.assert_array_equal(answers.logits.argmax(axis=1), swept.predictions[0])


@pytest.mark.parametrize(
    ("repeats", "said"),
    [
        ((6.27, 5.88, 5.95), ""),
        ((1.0, 1.09, 1.05), ""),
        ((1.0, 1.12, 1.05), "12%"),
        ((1.44, 1.43, 2.02), "41%"),
        ((1.0,), ""),
    ],
)
def test_repeats_of_one_work_that_differ_are_said(repeats: tuple[float, ...], said: str) -> None:
    row = LatencyRow(
        backbone="b", method="joint", key="k", point=ALL_LAYERS, engine="pytorch", precision="float32", score=0.8,
        mode="batch 1", threads=1, examples=1, exits=(1,), ms_per_example=1.0, repeats_ms=repeats, p50_ms=1.0,
        p99_ms=1.0, measured_speedup=1.0, own_layer_speedup=1.0, own_flop_speedup=1.0,
    )  # fmt: skip
    early = row.model_copy(update={"point": point_of(make("patience"), {}, 2.0), "repeats_ms": (1.0, 9.0, 1.0)})
    steady = row.model_copy(update={"mode": "batch 32", "repeats_ms": (1.0, 1.05, 1.0)})
    line = unsteady("t", [steady, row, early])
    assert line == (
        f"t: repeats of the full pass differ by {said} (b/joint, batch 1); let the machine do nothing else, or raise "
        "latency.repeats"
        if said
        else ""
    )


def test_each_model_is_timed_at_its_own_points(workspace: Workspace) -> None:
    """The real stages; the models are ones that nobody trained."""
    criteria = {"patience": {}, "temperature": {}, "oracle": {}}
    workspace.write_params({"evaluate.criteria": criteria, "latency.repeats": 1, "latency.batch_size": 5})
    assert workspace.stage("prepare", TASK).code == 0
    torch.manual_seed(0)
    encoder = build_encoder(load_params().backbone("demo-albert"), 400)
    for key, exits in (("plain", [12]), ("first", range(1, 13)), ("second", range(1, 13))):
        save_model(MultiExit(encoder, exits, 2), TASK, key)
    select(TASK, "demo-albert", {"single_exit": {1: "plain"}, "joint": {2: "second", 1: "first"}})
    for stage in ("trace", "evaluate", "latency"):
        done = workspace.stage(stage, TASK)
        assert done.code == 0, done.err
    evaluated = Evaluated.read(HERE.evaluated(TASK), "")
    measured = Latency.read(HERE.latency(TASK), "").measured
    assert measured is not None
    assert (measured.device, measured.threads) == ("cpu", (1,))
    # A single exit has nothing to gain, a bound cannot run, and of two seeds the one named first is timed.
    chosen = {row.criterion: row for row in evaluated.rows if row.method == "joint"}
    assert {row.key for row in measured.rows} == {"second"}
    assert [(row.mode, row.point.criterion) for row in measured.rows] == [
        (mode, criterion) for mode in ("batch 1", "batch 5") for criterion in (None, "patience", "temperature")
    ]
    for row in measured.rows:
        expected = chosen[row.point.criterion]
        assert row.point == expected.point("second")
        assert row.examples == 12
        assert row.ms_per_example > 0
        # All rows of the split are timed, so the ratios are those of replay.
        speedup = expected.layer_speedup.values[expected.keys.index("second")]
        assert row.own_layer_speedup == pytest.approx(speedup, abs=1e-4)
        if row.point.criterion is None:
            assert (row.measured_speedup, row.own_layer_speedup, row.own_flop_speedup) == (1.0, 1.0, 1.0)
    check_runs(evaluated)


def check_runs(evaluated: Evaluated) -> None:
    """Rows are runs that MLflow can compare: one name for a number everywhere, and the trials that they rest on."""
    tracker = Tracker()
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.kind = 'row'")
    by_name = {run.data.tags["mlflow.runName"]: run for run in runs}
    assert len(by_name) == len(runs) == len(evaluated.rows) + 6
    assert {run.info.status for run in runs} == {"FINISHED"}
    row = next(row for row in evaluated.rows if (row.method, row.criterion) == ("joint", "patience"))
    run = by_name["patience joint demo-albert demo-sentences validation (evaluate)"]
    timed = by_name["patience joint demo-albert demo-sentences batch 1 (latency)"]
    assert run.data.metrics["score"] == row.score.median
    assert run.data.metrics["layer_speedup"] == row.layer_speedup.median
    assert timed.data.metrics.keys() == {"measured_speedup", "ms_per_example"}
    assert run.data.params["threshold"] == str(row.points[0].threshold)
    same = ("task", "backbone", "method", "criterion")
    assert [run.data.params[name] for name in same] == [timed.data.params[name] for name in same]
    steps = [entry.step for entry in tracker.client.get_metric_history(run.info.run_id, "exit_score")]
    assert steps == list(range(1, 13))
    (stage,) = tracker.client.search_runs([tracker.experiment_id], "attributes.run_name = 'evaluate demo-sentences'")
    assert run.data.tags["mlflow.parentRunId"] == stage.info.run_id
    assert run.data.tags.keys() >= {"mlflow.user", "mlflow.source.name", "mlflow.source.git.commit"}
    found = tracker.client.search_runs([tracker.experiment_id], "tags.keys LIKE '%first%' and tags.stage = 'evaluate'")
    assert run.info.run_id in {one.info.run_id for one in found}, "from a report row's key to what it was reported in"


ENGINES = [("pytorch", "float32"), ("pytorch", "bf16"), ("onnx", "float32"), ("onnx", "int8")]


def test_what_an_engineer_would_ship_is_timed_beside_pytorch(workspace: Workspace) -> None:
    """The real stages: rows leave as in a replay of what the exported graphs answer."""

    workspace.write_params(
        {
            **{"evaluate.criteria": {"patience": {}, "confidence": {}}, "latency.repeats": 2},
            **{"latency.batch_size": [1, 5], "latency.threads": [1, 2]},
            **{"export": {"tasks": [TASK], "precisions": ["float32", "int8"]}},
            "latency.engines": ["pytorch", "pytorch-bf16", "onnx-float32", "onnx-int8"],
        }
    )
    model = evaluate_untrained(workspace, TASK)
    line = workspace.stage("latency", TASK).error()
    assert "model.json: no such file; run `dvc repro export@demo-sentences`" in line
    for stage in ("export", "latency"):
        done = workspace.stage(stage, TASK)
        assert done.code == 0, done.err
    measured = Latency.read(HERE.latency(TASK), "").measured
    assert measured is not None
    assert [(row.threads, row.mode, *row_engine(row), row.point.criterion) for row in measured.rows] == [
        (threads, mode, *engine, criterion)
        for threads in (1, 2)
        for mode in ("batch 1", "batch 5")
        for engine in ENGINES
        for criterion in (None, "patience", "confidence")
    ]
    for row in measured.rows:
        assert sum(row.exits) == row.examples == 12
        assert len(row.repeats_ms) == 2
        assert row.ms_per_example == pytest.approx(np.median(row.repeats_ms), abs=1e-4)
        assert 0 < row.p50_ms <= row.p99_ms
    check_deployed(measured.rows)
    check_roofs(measured)
    check_bf16(measured.rows, model)
    select(TASK, "demo-albert", {"joint": {1: "plain"}})
    group = Selected.read(HERE.selected(TASK), "").groups[0]
    evaluated = Evaluated.read(HERE.evaluated(TASK), "")
    with pytest.raises(ArtifactError, match="is of trial many, and plain is selected; run `dvc repro export"):
        deployments(TASK, group, model, evaluated, "validation", ["onnx-int8"], 1)


def row_engine(row: LatencyRow | Reached | Memory) -> tuple[str, str]:
    return row.engine, row.precision


def check_roofs(measured: Measured) -> None:
    """Each setting has the rate of the model's own products, and each engine's memory was asked of a process."""
    assert [(roof.threads, roof.mode) for roof in measured.roofs] == [
        (threads, mode) for threads in (1, 2) for mode in ("batch 1", "batch 5")
    ]
    for roof in measured.roofs:
        # A layer of the demo's ALBERT: four products of 64 by 64, one up and one down; and the embedding's projection.
        assert {shape[1:] for shape in roof.shapes} == {(64, 64, 12 * 4 + 1), (64, 128, 12), (128, 64, 12)}
        assert roof.rates.keys() == {"float32", "bf16", "int8"}
        assert [row_engine(one) for one in roof.reached] == ENGINES
        assert all(one.share > 0 for one in roof.reached)
    heights = [roof.shapes[0][0] for roof in measured.roofs[:2]]
    assert heights == sorted(heights)
    assert heights[0] < heights[-1]
    assert [row_engine(one) for one in measured.memory] == ENGINES
    for one in measured.memory:
        assert 1 < one.batch <= 5
        assert 0 < one.libraries_mib < one.peak_mib
    torch_mib, _, onnx_mib, _ = (one.peak_mib for one in measured.memory)
    assert onnx_mib < torch_mib, "the process of ONNX Runtime loaded Torch"


def check_bf16(timed: tuple[LatencyRow, ...], model: MultiExit) -> None:
    """Points were chosen, and scores measured, on what the model answers in bf16; traces are not recorded again."""
    manifest, own = manifest_of(TASK), [row for row in timed if row.precision == "bf16"]
    store = open_store(manifest, "demo-albert", manifest.report_splits[0], "cpu")
    logits, _ = record_in_torch(model.to(torch.bfloat16), store, "cpu")
    recorded = [load_trace(path) for path in HERE.recorded.glob("*.safetensors")]
    mine = [trace for trace in recorded if trace.provenance.get("engine") == "pytorch bf16"]
    assert sorted(trace.provenance["split"] for trace in mine) == sorted(("selection", *manifest.report_splits))
    assert HERE.trace(TASK, "many", "selection") in read_on_a_node(("pytorch-bf16",))
    assert HERE.trace(TASK, "many", "selection") not in read_on_a_node(("pytorch",))
    (trace,) = (trace for trace in mine if trace.provenance["split"] == manifest.report_splits[0])
    np.testing.assert_array_equal(trace.logits, logits)
    assert (logits != load_trace(HERE.trace(TASK, "many", manifest.report_splits[0])).logits).any()
    for row in own:
        swept = sweep_at(trace, row.point)
        assert row.score == pytest.approx(swept.metrics(("accuracy",))["score"][0], abs=1e-6)


def read_on_a_node(engines: tuple[RunsIn, ...]) -> set[Path]:
    """What travels to a node that times engines: the traces too, where points are chosen there."""
    evaluated, selected = Evaluated.read(HERE.evaluated(TASK), ""), Selected.read(HERE.selected(TASK), "")
    timing = Timing(manifest_of(TASK), selected, evaluated, "validation", 4, (1,), 1, (1,), 1, "cpu", "L4", engines)
    return {*timing.reads()}


def check_deployed(timed: tuple[LatencyRow, ...]) -> None:
    """Exits and scores of the timed rows are those of a trace that the exported graphs gave."""
    path = HERE.exported(TASK, "demo-albert", "joint")
    exported, manifest = Exported.read(path, ""), manifest_of(TASK)
    split = manifest.report_splits[0]
    store = open_store(manifest, "demo-albert", split, "cpu")
    for precision, made in exported.precisions.items():
        logits, _ = record(Deployed.open(path.parent, precision).segments, store)
        rows, exits = logits.shape[:2]
        depth = np.arange(1.0, exits + 1)
        trace = Trace(
            "classification", logits, np.zeros(rows), np.arange(rows), depth, np.tile(depth, (rows, 1)),
            np.full(rows, float(exits)),
        )  # fmt: skip
        scores = {row.criterion: row.score.median for row in made.rows if row.split == split}
        own = [row for row in timed if (row.engine, row.precision) == ("onnx", precision)]
        assert [row.point for row in own if (row.mode, row.threads) == ("batch 1", 2)] == [ALL_LAYERS, *made.points]
        for row in own:
            left = np.bincount(sweep_at(trace, row.point).exit_index[0], minlength=exits)
            assert row.exits == tuple(left.tolist()), (precision, row.mode, row.point.name)
            assert row.score == scores[row.point.criterion]
            assert row.own_layer_speedup == pytest.approx(exits * rows / (left * depth).sum(), abs=1e-4)


def test_engines_that_cannot_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {"tasks": {TASK: {}}, "latency": {"tasks": [TASK], "engines": ["pytorch", "onnx-int8"]}}
    with pytest.raises(Exception, match=r"^latency\.engines: 'onnx-int8' times what export leaves; add 'int8'"):
        Params.model_validate(raw)
    with pytest.raises(Exception, match=f"what export leaves; add '{TASK}' to export.tasks, or take it out"):
        Params.model_validate({**raw, "export": {"precisions": ["int8"]}})
    with pytest.raises(UnsupportedError, match=rf"latency.threads: {cores() + 1} and this machine has {cores()} core"):
        refuse_threads([1, cores() + 1])
    refuse_threads([1, cores()])
    with pytest.raises(UnsupportedError, match=r"'onnx-int8' runs on the CPU, and runtime\.device comes to cuda"):
        refuse_engines(["pytorch", "onnx-int8"], "cuda")
    refuse_engines(["pytorch", "onnx-int8"], "cpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnsupportedError, match=r"needs ONNX Runtime, which is not installed; `pip ins"):
        refuse_engines(["onnx-float32"], "cpu")
    refuse_engines(["pytorch"], "cuda")


@pytest.mark.parametrize(("family", "size"), [("albert", 12), ("mpnet", 24)])
def test_live_equals_replay_in_bf16(family: str, size: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(config_of(family), "mean")
    model = MultiExit(encoder, range(1, encoder.layers + 1), 3, channels=["lte"]).eval()
    ids, types = rows(tuple(range(2, 26)), seed=1)
    batches = [collate(ids[i : i + size], types[i : i + size], "cpu") for i in range(0, len(ids), size)]
    with torch.no_grad():
        centre(model, batches)
        model.channels["lte"].weight.mul_(4.0)
    plain = products_of(model, batches[0])
    check_replayed_in_bf16(ready(model, "cpu", torch.bfloat16), batches)
    assert products_of(model, batches[0]) == plain, "packed weights are seen as the others"


def test_images_in_bf16_leave_as_in_replay() -> None:
    model, batch = residual_model()
    check_replayed_in_bf16(ready(model, "cpu", torch.bfloat16), [batch])


def test_products_of_a_network_of_convolutions() -> None:
    network = ResNet(8, 4, [0.5] * 3, [0.25] * 3)
    model = MultiExit(network, range(1, network.layers + 1), 3).eval()
    found = products_of(model, {"image": torch.zeros(2, 32, 32, 3, dtype=torch.uint8)})
    shapes = [(one.rows, one.inner, one.outer, one.times, one.weights) for one in found]
    assert shapes[:2] == [(2 * 32 * 32, 27, 4, 1, 1), (2 * 32 * 32, 36, 4, 2, 2)]
    assert shapes[-1] == (2 * 8 * 8, 144, 16, 1, 1)
    assert all(one.outer > 3 for one in found), "heads are too small to count"
    rate = MatrixRate(found, ["float32", "int8"], 1, "cpu")
    rate.run()
    assert rate.rates().keys() == {"float32", "int8"}
    assert all(value > 0 for value in rate.rates().values())


def test_models_that_were_selected_anew_are_not_timed_at_the_points_of_others(workspace: Workspace) -> None:
    assert workspace.stage("prepare", TASK).code == 0
    encoder = build_encoder(load_params().backbone("demo-albert"), 400)
    for key in ("old", "new"):
        save_model(MultiExit(encoder, range(1, 13), 2), TASK, key)
    select(TASK, "demo-albert", {"joint": {1: "old"}})
    for stage in ("trace", "evaluate"):
        assert workspace.stage(stage, TASK).code == 0
    select(TASK, "demo-albert", {"joint": {1: "new"}})
    line = workspace.stage("latency", TASK).error()
    assert "operating points of demo-albert/joint: none of trial new; run `dvc repro evaluate`" in line


@pytest.mark.parametrize("stage", ["latency", "export", "attack"])
def test_a_task_that_is_not_named_ends_well_and_loads_nothing_heavy(workspace: Workspace, stage: str) -> None:
    workspace.write_params({"latency.tasks": [], "attack.tasks": {}})
    code = f"""
import runpy, sys
sys.argv = [{stage!r}, {TASK!r}]
try:
    runpy.run_module("stages.{stage}", run_name="__main__")
except SystemExit as end:
    assert not end.code
print({{"torch", "transformers", "textattack", "datasets", "ray", "mlflow", "scipy"}} & sys.modules.keys())
"""
    done = workspace.command("-c", code)
    assert (done.code, done.out.splitlines()[-1:]) == (0, ["set()"]), done.err
    written = {path.as_posix() for path in Path("outputs").rglob("*") if path.is_file()}
    tables = {HERE.attack_records(TASK).as_posix(), HERE.attack_page(TASK).as_posix()} if stage == "attack" else set()
    result = HERE.exports(TASK).as_posix() if stage == "export" else f"outputs/{stage}/{TASK}.json"
    assert written == {result} | tables
