"""One file of every class of `pipeline.results`, as the stages leave it."""

from pathlib import Path

from pipeline import results
from pipeline.evaluation.trace import save_trace
from pipeline.layout import Workspace
from pipeline.results import Result
from pipeline.results.traces import SELECTION
from tests.stored_results import key_of, params_for, point_of, trace_of, write_all

TASK = "sst2"
BACKBONE = "albert-base"


def write_every(root: Path) -> dict[type[Result], Path]:
    """Write a file of each class below a root; the path of each."""
    here = Workspace(root)
    write_all(here, params_for({TASK: {}, "cifar10": {}}, BACKBONE))
    key = key_of(BACKBONE, "joint", TASK, 1)
    written = {
        results.Manifest: _manifest().write(here.manifest(TASK)),
        results.TrialCode: _code().write(here.trial(key) / "code.json"),
        results.TrialResult: _result().write(here.trial(key) / "result.json"),
        results.TraceIndex: _index(here).write(here.trace_index(TASK)),
        results.Predictions: _predictions(key).write(here.predictions_index(TASK)),
        results.ShardRecords: _shard(key).write(here.shard(TASK, key)),
        results.PoolAnswers: results.PoolAnswers(
            defence="patience", trial=key, point=point_of("patience"), right_on_all=(True, False)
        ).write(here.pooled(TASK, key)),
        results.StoredMetrics: results.StoredMetrics(
            metrics={"score": {"one": 0.5, "undefined": None}, "exact": {"two": 7.0}}
        ).write(root / "metrics.json"),
        results.CodeEquivalence: _equivalence().write(root / "pipeline/code-equivalence.json"),
        results.UnsentRun: _unsent(key).write(here.unsent / f"{key}.json"),
        results.UnsentModel: _unsent_model(key).write(here.unsent_model(key) / f"{TASK}.json"),
        results.Selected: here.selected(TASK),
        results.Evaluated: here.evaluated(TASK),
        results.Latency: here.latency(TASK),
        results.Exports: results.Exports(task=TASK, models=(f"{BACKBONE}.joint",)).write(here.exports(TASK)),
        results.Exported: _exported(here).write(here.exported(TASK, BACKBONE, "joint")),
        results.Attack: here.attack(TASK),
        results.Trials: here.trials_table,
        results.Simulation: here.simulation,
    }
    assert set(written) == set(results.FILES)
    return written


def _manifest() -> results.Manifest:
    counts = results.Split(
        rows=80, sha256="ab", label_counts={"negative": 30, "positive": 50}, words_mean=7.5, words_max=20
    )
    splits = {"train": counts, SELECTION: counts, "validation": counts, "test": results.Split(rows=9, sha256="cd")}
    tokens = {split: results.TokenCounts(mean=9.5, max=22) for split in splits}
    inputs = results.Inputs(hash="ef", splits=dict.fromkeys(splits, "01"), vocabulary=400, tokens=tokens)
    return results.Manifest(
        task=TASK, modality="text", kind="classification", protocol="holdout", columns=("sentence",),
        label_names=("negative", "positive"), metrics=("accuracy",), source={"hub": "glue"},
        report_splits=("validation",), unlabelled_splits=("test",), splits=splits, inputs={BACKBONE: inputs},
    )  # fmt: skip


def _exported(here: Workspace) -> results.Exported:
    """A model of one seed in both precisions; ALBERT's layers share their file."""
    rows = [row for row in results.Evaluated.read(here.evaluated(TASK), "").rows if row.method == "joint"]
    points = tuple(row.points[0] for row in rows if row.criterion is not None)
    layers = {name: f"layer-01.{name}.onnx" for name in ("float32", "int8")}
    precisions = {
        name: results.ExportedPrecision(
            layers=(file,) * 12,
            exits=(f"exit-01.{name}.onnx",) * 12,
            points=points,
            rows=tuple(rows),
            promises=(results.Promise(exit_counts=(5,) * 12, difference=0.05),) * len(points),
        )
        for name, file in layers.items()
    }
    return results.Exported(
        task=TASK, modality="text", kind="classification", columns=("sentence",), label_names=("negative", "positive"),
        backbone=BACKBONE, method="joint", seed=1, key=key_of(BACKBONE, "joint", TASK, 1), weights_sha256="23",
        data_sha256={SELECTION: "45", "validation": "67"}, outputs=2, exits=tuple(range(1, 13)), channels=(),
        precisions=precisions, parameters=11_700_000, versions={"onnxruntime": "1.32.0"},
        files=dict.fromkeys(
            ("embedding.onnx", "exit-01.float32.onnx", "exit-01.int8.onnx", "heads.npz", *layers.values()), "89"
        ),
    )  # fmt: skip


def _code() -> results.TrialCode:
    return results.TrialCode(
        names={"task": TASK, "backbone": BACKBONE, "hub": None},
        code="0" * 16,
        definitions={"pipeline/training/fit.py": {"Fit": "1" * 16}},
    )


def _result() -> results.TrialResult:
    return results.TrialResult(
        best_epoch=2, epochs_run=3, selection=0.9, train_seconds=60.5, train_seconds_to_best=40.0, micro_batch=16,
        metrics={"loss": 0.25, "score_exit_01": None}, parameters=11_700_000, early_exit_parameters=24_000, layers=12,
        exits=tuple(range(1, 13)), weights_sha256="23", code="0" * 16, versions={"torch": "2.13.0"},
    )  # fmt: skip


def _index(here: Workspace) -> results.TraceIndex:
    """Two seeds of a method of several exits and one of one, on the selection, a report and a test split."""

    def entry(method: str, seed: int, split: str) -> results.TraceEntry:
        key = key_of(BACKBONE, method, TASK, seed)
        path = here.trace(TASK, key, split)
        trace = trace_of("classification", 2, 12 if method == "joint" else 1, 12, seed)
        return results.TraceEntry(
            backbone=BACKBONE, method=method, multi_exit=method == "joint", seed=seed, key=key, weights_sha256="23",
            split=split, file=path.name, sha256=save_trace(trace, path), rows=trace.rows,
        )  # fmt: skip

    models = [(method, seed) for method in ("single_exit", "joint") for seed in (1, 2)]
    return results.TraceIndex(
        task=TASK,
        traces=tuple(entry(*model, split) for model in models for split in (SELECTION, "validation")),
        unlabelled=tuple(entry(*model, "test") for model in models),
    )


def _predictions(key: str) -> results.Predictions:
    files = tuple(
        results.PredictionFile(
            model=f"{BACKBONE}.joint.{point.name}", backbone=BACKBONE, method="joint", seed=1, key=key, point=point,
            selection=0.9, split="test", rows=9, layer_speedup=1.5, file=f"{BACKBONE}.joint.{point.name}/SST-2.tsv",
            sha256="45",
        )
        for point in (point_of(None), point_of("patience"))
    )  # fmt: skip
    return results.Predictions(task=TASK, files=files)


def _shard(key: str) -> results.ShardRecords:
    won = results.Record(
        row_id=7, label=1, outcome="successful", reason=None, answer_before=1, answer_after=0,
        original=("a fine film",), changed=("a dull film",),
        queries=12, words=3, words_changed=1, layers_before=4, layers_under_attack=5.5,
        layers_after=6,
    )  # fmt: skip
    left = {"answer_after": None, "changed": None, "words_changed": None, "layers_after": None}
    skipped = won.model_copy(update={"row_id": 8, "outcome": "skipped", "layers_under_attack": None, **left})
    return results.ShardRecords(defence="patience", trial=key, point=point_of("patience"), records=(won, skipped))


def _unsent_model(key: str) -> results.UnsentModel:
    return results.UnsentModel(
        task=TASK, content=key, run="0123456789abcdef", made=1700000000000, place=".", backbone="tiny", method="joint",
        criterion="patience", threshold=3.0, key=key, columns=("sentence",), precisions=("float32", "int8"),
        example=("a text",), metrics={"score": 0.5}, learned=True, tags={"stage": "s"},
    )  # fmt: skip


def _unsent(key: str) -> results.UnsentRun:
    return results.UnsentRun(
        id=key, name="sst2/albert-base/joint", key=key, parent="a" * 16, run_id=None, started=1_700_000_000_000,
        ended=None, status="RUNNING", tags={"trial": key}, params={"seed": "1"},
        metrics=(results.LoggedMetric(name="loss", value=0.5, time=1_700_000_000_001, step=1),),
        artifacts=("outputs/report/report.md",),
        data=(results.LoggedData(name="sst2", digest="ab", source="data/sst2", context="training"),),
    )  # fmt: skip


def _equivalence() -> results.CodeEquivalence:
    pair = results.CodePair(before="0" * 16, after="1" * 16)
    declaration = results.Declaration(
        reason="only comments", date="2026-01-31", since="c" * 40, changed=("fit.py (Fit)",), equal={"text/joint": pair}
    )
    return results.CodeEquivalence(declarations=(declaration,))
