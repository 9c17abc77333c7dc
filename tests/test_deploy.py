"""Models that leave the house: ONNX graphs answer as PyTorch does, live equals replay in every precision, and what
answers needs no PyTorch."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

from pipeline.errors import ArtifactError, ParamsError, PipelineError, UnsupportedError
from pipeline.evaluation.criteria.base import Criterion
from pipeline.evaluation.trace import load_trace
from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.models.deploy.folder import FLOAT32, INT8, SCHEMA, read_description
from pipeline.models.deploy.graphs import shape_of, write_graphs
from pipeline.models.deploy.quantised import write_int8
from pipeline.models.deploy.recording import record
from pipeline.models.deploy.runtime import Deployed
from pipeline.models.deploy.segments import Segments, arrays_of
from pipeline.models.device import machine
from pipeline.models.encoders.encoder import Encoder, build_encoder
from pipeline.models.multi_exit import MultiExit
from pipeline.models.own_traces import own_traces, torch_traces
from pipeline.params import Params, load_params
from pipeline.results import Evaluated, ExitCosts, Exported, ExportedPrecision, Exports, Row, Selected
from pipeline.tasks.stores import Store, manifest_of, open_store
from pipeline.tasks.text.tokens import collate
from tests.replayed import check_live_equals_replay, residual_model
from tests.selections import evaluate_untrained, save_model, select, untrained_images
from tests.test_ask import invoke
from tests.test_backbones import centre, config_of, rows
from tests.workspace import Workspace

TASK = "demo-sentences"
Arrays = dict[str, np.ndarray]
LENGTHS = tuple(range(2, 26))


def exported(model: MultiExit, folder: Path) -> dict[str, Any]:
    """Write a text model's graphs, in both precisions."""
    written = write_graphs(model, folder, images=False)
    return shape_of(model, {FLOAT32: written, INT8: write_int8(folder, written)})


def text_model(family: str, pooling: Any = "mean") -> MultiExit:
    torch.manual_seed(0)
    encoder = Encoder(config_of(family), pooling, None if family == "albert" else 2)
    if family == "mpnet":  # of each kind, with pools of their own
        encoder.part_poolers("own_pooler")
        with torch.no_grad():
            for pooler in encoder.own_poolers:
                pooler.weight.add_(0.1 * torch.randn_like(pooler.weight))
    model = MultiExit(encoder, range(1, encoder.layers + 1), 3, channels=["lte"]).eval()
    with torch.no_grad():
        centre(model, [collate(*rows(LENGTHS, seed=1), "cpu")])
        model.channels["lte"].weight.mul_(4.0)
    return model


# Graphs


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        ("bert", "first"),
        ("mpnet", "mean"),
        pytest.param("roberta", "mean", marks=pytest.mark.slow),
        pytest.param("distilbert", "first", marks=pytest.mark.slow),
    ],
)
def test_the_graphs_answer_as_pytorch_does(family: str, pooling: Any, tmp_path: Path) -> None:
    model = text_model(family, pooling)
    written = write_graphs(model, tmp_path, images=False)
    check_as_pytorch(model, Segments.open(tmp_path, shape_of(model, {FLOAT32: written}), FLOAT32))


def check_as_pytorch(model: MultiExit, segments: Segments) -> None:
    for lengths in ((9, 4, 7, 9, 2, 5), (6, 6), (1,), (24,)):
        batch = collate(*rows(lengths), "cpu")
        with torch.inference_mode():
            expected, channels = model.record(batch, model.channels)
        logits, values = segments.record(arrays_of(batch))
        np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(values["lte"], channels["lte"].numpy(), rtol=1e-4, atol=2e-5)


def test_images_answer_as_pytorch_does_and_leave_as_in_replay(tmp_path: Path) -> None:
    model, batch = residual_model()
    with torch.no_grad():
        expected = model(batch).numpy()
    pixels = batch["image"].numpy()
    written = write_graphs(model, tmp_path, images=True)
    int8 = write_int8(tmp_path, written, [{"image": pixels[:20]}])
    assert int8.exits == written.exits
    shape = shape_of(model, {FLOAT32: written, INT8: int8})
    segments = Segments.open(tmp_path, shape, FLOAT32)
    for part in (slice(0, 30), slice(3, 4)):
        np.testing.assert_allclose(segments.record({"image": pixels[part]})[0], expected[part], atol=1e-4)
    check_segments(segments, [arrays_of(batch)])
    quantised = Segments.open(tmp_path, shape, INT8)
    logits = quantised.record({"image": pixels})[0]
    assert 0 < np.abs(logits - expected).max() < 0.5 * np.abs(expected).max()
    alone = [quantised.record({"image": pixels[i : i + 1]})[0] for i in range(len(pixels))]
    np.testing.assert_allclose(np.concatenate(alone), logits, atol=1e-5)  # scales do not depend on the other rows
    check_segments(quantised, [arrays_of(batch)])


# Live equals replay


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs of an ALBERT of two groups, in both precisions, with what `Segments` reads of its description."""
    into = tmp_path_factory.mktemp("exported")
    (into / "shape.json").write_text(json.dumps(exported(text_model("albert"), into)))
    return into


def test_layers_that_share_their_weights_are_stored_once(folder: Path) -> None:
    model, shape = text_model("albert"), json.loads((folder / "shape.json").read_text())
    layers = shape["precisions"][FLOAT32]["layers"]
    assert len(layers) == model.backbone.layers
    assert sorted(set(layers)) == sorted(path.name for path in folder.glob("layer-*.float32.onnx"))
    assert len(set(layers)) == model.backbone.groups < len(layers)
    assert {path.name for path in folder.glob("exit-*")} == {"exit-01.float32.onnx", "exit-01.int8.onnx"}
    check_as_pytorch(model, opened(folder, FLOAT32))
    assert str(ROOT).encode() not in b"".join(path.read_bytes() for path in folder.iterdir()), "lines of our own files"


def opened(folder: Path, precision: str) -> Segments:
    return Segments.open(folder, json.loads((folder / "shape.json").read_text()), precision)


@pytest.mark.parametrize("size", [1, 5, len(LENGTHS)])
@pytest.mark.parametrize("precision", [FLOAT32, INT8])
def test_live_equals_replay(folder: Path, precision: str, size: int) -> None:
    ids, types = rows(LENGTHS, seed=1)
    parts = [slice(start, start + size) for start in range(0, len(ids), size)]
    check_segments(opened(folder, precision), [arrays_of(collate(ids[p], types[p], "cpu")) for p in parts])


def check_segments(segments: Segments, batches: list[Arrays]) -> None:
    """Live equals replay for graphs, and all layers answer as the last exit."""
    recorded = [segments.record(batch) for batch in batches]
    logits = np.concatenate([part[0] for part in recorded])
    channels = {name: np.concatenate([part[1][name] for part in recorded]) for name in segments.channels}

    def live(criterion: Criterion, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        rule = segments.rule(criterion, threshold)
        answers = [segments.answer(batch, rule) for batch in batches]
        exit_index = np.concatenate([answer.exit_index for answer in answers])
        return exit_index, np.concatenate([answer.logits for answer in answers])

    check_live_equals_replay(logits, channels, live)
    full = [segments.answer(batch, segments.rule(None, np.inf)) for batch in batches]
    np.testing.assert_array_equal(np.concatenate([answer.logits for answer in full]), logits[:, -1])


def test_an_int8_answer_does_not_depend_on_the_other_rows(folder: Path) -> None:
    """ONNX Runtime rounds a tensor by its largest value, padding and other rows included."""
    segments, (ids, types) = opened(folder, INT8), rows(LENGTHS, seed=1)
    together = segments.record(arrays_of(collate(ids, types, "cpu")))[0]
    alone = [segments.record(arrays_of(collate(ids[i : i + 1], types[i : i + 1], "cpu")))[0] for i in range(len(ids))]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    exact = opened(folder, FLOAT32).record(arrays_of(collate(ids, types, "cpu")))[0]
    assert 0 < np.abs(together - exact).max() < 0.5 * np.abs(exact).max()


# The command, the folder and what answers


@pytest.fixture
def at_hand(workspace: Workspace) -> Path:
    """The folder that the command wrote of a model that nobody trained, through the real stages up to evaluate."""
    criteria: dict[str, dict[str, float]] = {"patience": {}, "confidence": {}, "temperature": {}, "oracle": {}}
    workspace.write_params({"evaluate.criteria": criteria})
    evaluate_untrained(workspace, TASK)
    said = invoke("export", TASK, "--to", "left", "--precision", FLOAT32, "--precision", INT8)
    assert said.splitlines()[-1] == "written: left"
    return workspace.folder / "left"


SCRIPT = """
import json, sys
from pipeline.models.deploy.runtime import Deployed
model = Deployed.open(sys.argv[1], precision=sys.argv[2])
texts = json.loads(sys.argv[3])
answers = [model.answer(texts, criterion=name, threshold=at) for name, at in (("patience", 2), ("confidence", None))]
loaded = {"torch", "transformers", "pydantic", "onnx", "scipy", "safetensors", "pyarrow"} & sys.modules.keys()
print(json.dumps([sorted(loaded), [[(a.label, a.exit) for a in one] for one in answers]]))
"""


@pytest.mark.slow
def test_a_model_that_left_answers_without_pytorch(at_hand: Path) -> None:
    texts = ["the film was good", "nobody liked the dull plot but the end was moving", "good"]
    described = Exported.model_validate_json(
        json.dumps({k: v for k, v in read_description(at_hand).items() if k != "schema"})
    )
    assert Exported.schema_version == SCHEMA
    for precision in (FLOAT32, INT8):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(at_hand), precision, json.dumps(texts)],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        loaded, answers = json.loads(done.stdout)
        assert loaded == []
        model = Deployed.open(at_hand, precision)
        for name, at, said in (("patience", 2.0, answers[0]), ("confidence", None, answers[1])):
            assert [[a.label, a.exit] for a in model.answer(texts, name, at)] == said
        # Thresholds were chosen, and scores measured, on these graphs; a bound cannot run.
        points = described.precisions[precision].points
        assert [point.criterion for point in points] == ["patience", "confidence", "temperature"]
        assert model.criterion("confidence", None)[1] == points[1].limit
        check_promises(model, described.precisions[precision])
        rows_of = described.precisions[precision].rows
        assert [row.criterion for row in rows_of if row.split == rows_of[0].split] == [
            None,
            *(p.criterion for p in points),
        ]
    evaluated = {row.criterion: row for row in Evaluated.read(HERE.evaluated(TASK), "").rows}
    for row in described.precisions[FLOAT32].rows:  # the same model to rounding, on the same rows
        assert row.score.median == pytest.approx(evaluated[row.criterion].score.median, abs=0.1)
    card = (at_hand / "README.md").read_text(encoding="utf-8")
    assert "patience (PABEE)" in card
    assert ("**Beware: this model has learned nothing" in card) is not described.learned
    assert described.weights_sha256 in card
    check_bad_input(at_hand)


def check_promises(model: Deployed, exported: ExportedPrecision) -> None:
    """Selection rows leave where the description says, and agree with the last exit as often."""
    texts = [str(text) for text in parquet.read_table(HERE.texts(TASK, "selection"))["sentence"].to_pylist()]
    full = [answer.label for answer in model.answer(texts, "full")]
    assert len(exported.promises) == len(exported.points)
    for point, promise in zip(exported.points, exported.promises, strict=True):
        answers = model.answer(texts, point.criterion)
        left = Counter(answer.exit - 1 for answer in answers)
        assert list(promise.exit_counts) == [left[index] for index in range(12)], point
        others = [answer.label != last for answer, last in zip(answers, full, strict=True)]
        assert promise.difference == pytest.approx(np.mean(others)), point


@pytest.mark.slow
def test_the_stage_exports_the_models_with_early_exits(workspace: Workspace) -> None:
    workspace.write_params({"export.tasks": [TASK], "evaluate.criteria": {"patience": {}}})
    assert workspace.stage("prepare", TASK).code == 0
    encoder = build_encoder(load_params().backbone("demo-albert"), 400)
    for key, exits in (("plain", [12]), ("many", range(1, 13))):
        save_model(MultiExit(encoder, exits, 2), TASK, key)
    select(TASK, "demo-albert", {"single_exit": {1: "plain"}, "joint": {1: "many"}})
    for stage in ("trace", "evaluate", "export"):
        done = workspace.stage(stage, TASK)
        assert done.code == 0, done.err
    assert Exports.read(HERE.exports(TASK), "").models == ("demo-albert.joint",)
    path = HERE.exported(TASK, "demo-albert", "joint")
    described = Exported.read(path, "")
    assert set(described.precisions) == {FLOAT32}
    answer = Deployed.open(path.parent).answer(["a good film"], "full")[0]
    assert (answer.exit, answer.layer, sorted(answer.probabilities or {})) == (12, 12, sorted(described.label_names))
    # A model without early exits has no operating point, and answers an ordinary request.
    invoke("export", TASK, "--method", "single_exit", "--to", "plain")
    plain = Deployed.open(workspace.folder / "plain")
    assert plain.points == {}
    assert [answer.layer for answer in plain.answer(["a good film", "a bad one"])] == [12, 12]


@pytest.mark.parametrize("engine", ["pytorch", "onnx-int8"])
def test_points_are_chosen_for_a_budget_of_milliseconds(workspace: Workspace, engine: str) -> None:
    """The real stages. evaluate times the exits in the named engine, export in each of its own."""
    workspace.write_params(
        {
            "evaluate": {
                "criteria": {"confidence": {}},
                "choose": {"rule": "latency", "budget_ms": 1e6 if engine == "pytorch" else 1e-6, "engine": engine},
            },
            "export": {"tasks": [TASK], "precisions": [INT8]},
        }
    )
    evaluate_untrained(workspace, TASK)
    evaluated = Evaluated.read(HERE.evaluated(TASK), "")
    assert (evaluated.choosing.engine, evaluated.choosing.machine) == (engine, machine())
    (costs,) = evaluated.costs
    assert (costs.backbone, costs.method, costs.engine, costs.machine) == ("demo-albert", "joint", engine, machine())
    assert costs.rows == 12
    check_costs(evaluated.rows, costs, within=engine == "pytorch")
    before = set(HERE.recorded.iterdir())
    done = workspace.stage("export", TASK)
    assert done.code == 0, done.err
    path = HERE.exported(TASK, "demo-albert", "joint")
    check_cached_traces(set(HERE.recorded.iterdir()) - before, path.parent)
    made = Exported.read(path, "").precisions[INT8]
    assert made.costs is not None
    assert (made.costs.engine, made.costs.machine) == ("onnx-int8", machine())
    check_costs(made.rows, made.costs, within=engine == "pytorch")
    assert f"milliseconds to each exit in int8: `{made.costs.ms[0]:.4g}" in path.with_name("README.md").read_text()


def check_cached_traces(recorded: set[Path], folder: Path) -> None:
    """What the graphs answered is in the cache, and is not recorded again where all that it depends on is equal."""
    manifest = manifest_of(TASK)
    splits = ("selection", *manifest.report_splits)
    traces = {trace.provenance["split"]: trace for trace in map(load_trace, recorded)}
    assert len(recorded) == len(splits)
    segments = Deployed.open(folder, INT8).segments
    for split in splits:
        assert traces[split].provenance["engine"] == "onnxruntime int8"
        logits, _ = record(segments, open_store(manifest, "demo-albert", split, "cpu"))
        np.testing.assert_array_equal(traces[split].logits, logits)
    (group,) = Selected.read(HERE.selected(TASK), "").groups
    plain = torch_traces(manifest, group)
    asked: list[int] = []

    def again(store: Store) -> tuple[np.ndarray, Arrays]:
        asked.append(len(store))
        return record(segments, store)

    for version in ("1", "1", "2"):
        own = own_traces(manifest, group, plain, again, {"engine": "e", "version": version})
        np.testing.assert_array_equal(own["selection"].logits, traces["selection"].logits)
    assert len(asked) == 2 * len(splits), "another version, and it is recorded anew"


def check_costs(rows: Sequence[Row], costs: ExitCosts, within: bool) -> None:
    full, row = rows
    assert full.cost_ms is not None
    assert full.cost_ms.values == (costs.full_ms,)
    assert row.in_window == within
    assert row.cost_ms is not None
    expected = row.cost_ms.median
    assert expected is not None
    assert min(costs.ms) <= expected <= max(costs.ms) + 1e-9
    assert len(costs.ms) == 12


@pytest.mark.slow
def test_images_are_exported_in_int8(workspace: Workspace) -> None:
    """The real stages; the exits' files, which stay float32, are kept without the float32 layers."""
    task = "demo-images"
    workspace.write_params(
        {
            "tasks": {task: {"rows": {"train": 20, "selection": 24, "report": 16}}},
            "backbones": {"resnet14": {"width": 4}},
            "images": {"grid": {"batch_size": [8], "learning_rate": [0.1]}},
            "evaluate": {
                "criteria": {"confidence": {}},
                "choose": {"rule": "latency", "budget_ms": 1e6, "engine": "onnx-int8"},
            },
            "latency.tasks": [],
            "export": {"tasks": [task], "precisions": [INT8]},
        }
    )
    untrained_images(workspace)
    assert [one.engine for one in Evaluated.read(HERE.evaluated(task), "").costs] == ["onnx-int8"]
    done = workspace.stage("export", task)
    assert done.code == 0, done.err
    path = HERE.exported(task, "resnet14", "joint")
    made = Exported.read(path, "").precisions[INT8]
    assert {file.name for file in path.parent.glob("layer-*")} == set(made.layers)
    assert {file.name for file in path.parent.glob("exit-*")} == set(made.exits)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    assert len(Deployed.open(path.parent, INT8).answer(pixels, "confidence")) == 3


def test_an_unknown_task_is_not_exported() -> None:
    raw = {"tasks": {"cifar10": {}}, "backbones": {"resnet20": {}}, "methods": ["joint"]}
    with pytest.raises(ParamsError, match=r"export\.tasks: unknown task 'cifar'; did you mean 'cifar10'"):
        Params.model_validate({**raw, "export": {"tasks": ["cifar"]}})


def check_bad_input(folder: Path) -> None:
    model = Deployed.open(folder)
    for error, wrong in (
        (ParamsError, lambda: model.answer([])),
        (ParamsError, lambda: model.answer(["a"], "entropy")),
        (ParamsError, lambda: model.answer(["a"], "patiense", 2)),
        (ParamsError, lambda: Deployed.open(folder, "int4")),
        (ParamsError, lambda: Deployed.open(folder, threads=0)),
        (UnsupportedError, lambda: model.answer([("a", "b")])),
        (UnsupportedError, lambda: model.answer(["a"], "oracle", 1)),
        (UnsupportedError, lambda: model.answer(["a"], "learned", 0.5)),
        (ArtifactError, lambda: Deployed.open(folder.parent)),
    ):
        with pytest.raises(error) as raised:
            wrong()
        assert "\n" not in str(raised.value)
    with pytest.raises(ParamsError, match="--to left: is there already; name a new folder"):
        invoke("export", TASK, "--to", "left")
    with pytest.raises(PipelineError, match="unknown precision 'int7'; did you mean 'int8'"):
        invoke("export", TASK, "--to", "other", "--precision", "int7")
    (folder / "heads.npz").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"heads\.npz: its content is not what was exported"):
        Deployed.open(folder)
    (folder / "embedding.onnx").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        Deployed.open(folder)
