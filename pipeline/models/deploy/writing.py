"""The export of a selected model: its graphs, its tokenizer, its thresholds by precision, its card."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.diagnosis import model_learned
from pipeline.evaluation.point import sweep_at
from pipeline.evaluation.trace import Trace
from pipeline.identity.code import code_identity
from pipeline.identity.versions import library_versions, processor
from pipeline.layout import HERE
from pipeline.models.deploy.folder import (
    CARD,
    DESCRIPTION,
    EMBEDDING,
    FLOAT32,
    HEADS,
    INT8,
    TOKENIZER,
    hash_of,
)
from pipeline.models.deploy.segments import LEFT_OUT, Segments
from pipeline.models.own_traces import Choosing, own_points, own_traces, torch_traces
from pipeline.results import (
    Evaluated,
    ExitCosts,
    Exported,
    ExportedPrecision,
    Manifest,
    ModelGroup,
    OperatingPoint,
    Promise,
)
from pipeline.results.traces import SELECTION
from pipeline.tasks.stores import inputs_hash

if TYPE_CHECKING:
    from pipeline.models.deploy.graphs import Written

PRECISIONS = (FLOAT32, INT8)


def export(
    manifest: Manifest,
    group: ModelGroup,
    precisions: Sequence[str],
    choosing: Choosing,
    evaluated: Evaluated,
    folder: Path,
    threads: int = 1,
) -> Exported:
    """Write the first seed's model of a group into an empty folder.

    Args:
        precisions: float32, int8 or both.
        evaluated: for the card: what all seeds reached in PyTorch.
        threads: compute threads while traces are recorded.

    Raises:
        ParamsError: an unknown precision, or none.
        ArtifactError: the model or its traces are missing.
    """
    from pipeline.models.deploy.card import card
    from pipeline.models.deploy.graphs import shape_of, write_graphs
    from pipeline.models.deploy.quantised import calibration_rows, write_int8
    from pipeline.models.deploy.recording import record
    from pipeline.models.multi_exit import load_checkpoint

    images = manifest.modality == "image"
    refuse_precisions(precisions)
    trial = group.trials[0]
    traces = torch_traces(manifest, group)
    model = load_checkpoint(HERE.model(manifest.task, trial.key), sha256=trial.weights_sha256)
    written = write_graphs(model, folder, images)
    graphs = {FLOAT32: written}
    if INT8 in precisions:
        graphs[INT8] = write_int8(folder, written, calibration_rows(manifest, group.backbone))
    if not images:
        shutil.copyfile(HERE.tokenizer(manifest.task, group.backbone), folder / TOKENIZER)
    measured = {}
    for name in precisions:
        segments = Segments.open(folder, shape_of(model, {name: graphs[name]}), name, threads)
        arithmetic = _arithmetic(graphs[name], folder, name, threads)
        own = own_traces(manifest, group, traces, partial(record, segments), arithmetic)
        costs = _costs(segments, manifest, group, name, threads) if choosing.chooser.reads_costs else None
        rows_of, points = own_points(manifest, group, own, choosing, costs)
        promises = tuple(promise_of(own[SELECTION], point) for point in points)
        measured[name] = ExportedPrecision(
            **vars(graphs[name]), points=points, promises=promises, rows=rows_of, costs=costs
        )
    if FLOAT32 not in precisions:
        kept = {file for one in measured.values() for file in (*one.layers, *one.exits)}
        for file in {*written.layers, *written.exits} - kept:
            (folder / file).unlink()
    files = {path.name: hash_of(path) for path in sorted(folder.iterdir())}
    exported = Exported(
        task=manifest.task,
        modality=manifest.modality,
        kind=manifest.kind,
        columns=manifest.columns,
        label_names=manifest.label_names,
        backbone=group.backbone,
        method=group.method,
        seed=trial.seed,
        key=trial.key,
        weights_sha256=trial.weights_sha256,
        data_sha256={split: inputs_hash(manifest, group.backbone, split) for split in traces},
        outputs=model.outputs,
        exits=model.exits,
        channels=tuple(model.channels),
        precisions=measured,
        learned=model_learned(evaluated, group, manifest.report_splits[0]),
        parameters=model.parameter_counts()["parameters"],
        versions=library_versions() | _versions(),
        files=files,
    )
    exported.write(folder / DESCRIPTION)
    rows = [row for row in evaluated.rows if (row.backbone, row.method) == (group.backbone, group.method)]
    (folder / CARD).write_text(card(exported, rows), encoding="utf-8")
    return exported


def refuse_precisions(precisions: Sequence[str]) -> None:
    """Raise ParamsError for an unknown precision or none."""
    if not precisions:
        raise ParamsError(f"precision: none given; name one of {', '.join(PRECISIONS)}")
    for name in precisions:
        if name not in PRECISIONS:
            raise unknown("precision", name, PRECISIONS, key="precision")


def _arithmetic(graphs: "Written", folder: Path, precision: str, threads: int) -> dict[str, str]:
    """What the answers of graphs depend on, beside the rows."""
    files = sorted({EMBEDDING, HEADS, *graphs.layers, *graphs.exits})
    hashes = {name: hash_of(folder / name) for name in files}
    about = {"engine": f"onnxruntime {precision}", "version": _versions()["onnxruntime"], "processor": processor()}
    about |= {"code": code_identity(["pipeline.models.deploy.recording:record"]).hash}
    return {**about, "threads": str(threads), "left_out": ", ".join(LEFT_OUT), **hashes}


def _costs(segments: Segments, manifest: Manifest, group: ModelGroup, precision: str, threads: int) -> ExitCosts:
    """What each exit of the graphs costs here."""
    from pipeline.models.costs import costs_in_onnx

    return costs_in_onnx(segments, manifest, group, "onnx-int8" if precision == INT8 else "onnx-float32", threads)


def promise_of(trace: Trace, point: OperatingPoint) -> Promise:
    """Where the rows of a trace leave at a point, and how far their answers are from the last exit's."""
    swept, last = sweep_at(trace, point), trace.answers()[:, -1]
    answers = swept.predictions[0]
    differences = np.abs(answers - last) if trace.kind == "regression" else answers != last
    counts = tuple(int(count) for count in swept.exit_counts[0])
    return Promise(exit_counts=counts, difference=float(differences.mean()))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnx", "onnxruntime")}
