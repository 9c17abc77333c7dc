"""The export of a selected model: its graphs, its tokenizer, its thresholds by precision, its card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ArtifactError, ParamsError, UnsupportedError, unknown
from pipeline.evaluation.choosing import Chooser, make_chooser
from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.point import sweep_at
from pipeline.evaluation.settings import Evaluate
from pipeline.evaluation.trace import Trace, load_trace
from pipeline.identity.versions import library_versions
from pipeline.layout import HERE
from pipeline.models.deploy.folder import CARD, DESCRIPTION, FLOAT32, INT8, TOKENIZER, hash_of
from pipeline.models.deploy.segments import Segments
from pipeline.results import (
    Evaluated,
    ExitCosts,
    Exported,
    ExportedPrecision,
    Manifest,
    ModelGroup,
    OperatingPoint,
    Promise,
    Row,
)
from pipeline.results.traces import SELECTION
from pipeline.tasks.splits import Protocol
from pipeline.tasks.stores import inputs_hash, open_store

PRECISIONS = (FLOAT32, INT8)


@dataclass(frozen=True)
class Choosing:
    """How thresholds are chosen: as in evaluate.

    Attributes:
        criteria: name to settings.
        protocol: source of the selection rows.
    """

    criteria: Mapping[str, Mapping[str, float]]
    chooser: Chooser
    protocol: Protocol

    @classmethod
    def of(cls, settings: Evaluate, window: tuple[float, float], protocol: Protocol) -> "Choosing":
        """As the settings of evaluate say, with the window of the task's modality."""
        return cls(settings.criteria, make_chooser(settings.choose.model_dump(), window), protocol)


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
        UnsupportedError: one that does not serve images.
        ArtifactError: the model or its traces are missing.
    """
    from pipeline.models.deploy.card import card
    from pipeline.models.deploy.graphs import write_graphs
    from pipeline.models.deploy.quantised import write_int8
    from pipeline.models.multi_exit import load_checkpoint

    images = manifest.modality == "image"
    refuse_precisions(precisions, images)
    trial = group.trials[0]
    traces = _recorded(manifest, group)
    model = load_checkpoint(HERE.model(manifest.task, trial.key), sha256=trial.weights_sha256)
    written = write_graphs(model, folder, images)
    graphs = {FLOAT32: written}
    if INT8 in precisions:
        graphs[INT8] = write_int8(folder, written)
    if not images:
        shutil.copyfile(HERE.tokenizer(manifest.task, group.backbone), folder / TOKENIZER)
    shape = {"exits": list(model.exits), "outputs": model.outputs, "channels": list(model.channels)}
    measured = {}
    for name in precisions:
        segments = Segments.open(folder, shape | {"precisions": {name: vars(graphs[name])}}, name, threads)
        own = _own_traces(manifest, group, traces, segments, name)
        costs = _costs(segments, manifest, group, name, threads) if choosing.chooser.reads_costs else None
        rows_of, points = _measured(manifest, group, own, choosing, costs)
        promises = tuple(promise_of(own[SELECTION], point) for point in points)
        measured[name] = ExportedPrecision(
            **vars(graphs[name]), points=points, promises=promises, rows=rows_of, costs=costs
        )
    if FLOAT32 not in precisions:
        for file in {*written.layers, *written.exits}:
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
        parameters=model.parameter_counts()["parameters"],
        versions=library_versions() | _versions(),
        files=files,
    )
    exported.write(folder / DESCRIPTION)
    rows = [row for row in evaluated.rows if (row.backbone, row.method) == (group.backbone, group.method)]
    (folder / CARD).write_text(card(exported, rows), encoding="utf-8")
    return exported


def refuse_precisions(precisions: Sequence[str], images: bool) -> None:
    """Raise ParamsError for an unknown precision or none, and UnsupportedError for one that does not serve images."""
    if not precisions:
        raise ParamsError(f"precision: none given; name one of {', '.join(PRECISIONS)}")
    for name in precisions:
        if name not in PRECISIONS:
            raise unknown("precision", name, PRECISIONS, key="precision")
        if images and name == INT8:
            raise UnsupportedError(
                "precision int8: ONNX Runtime's dynamic quantiser has no fast convolutions; export images in float32"
            )


def _recorded(manifest: Manifest, group: ModelGroup) -> dict[str, Trace]:
    """PyTorch's traces of the first seed's model by split, selection first."""
    key, remedy = group.trials[0].key, f"run `dvc repro trace@{manifest.task}`"
    splits = (SELECTION, *manifest.report_splits)
    return {split: load_trace(HERE.trace(manifest.task, key, split), remedy) for split in splits}


def _own_traces(
    manifest: Manifest, group: ModelGroup, traces: Mapping[str, Trace], segments: Segments, precision: str
) -> dict[str, Trace]:
    """Traces of the graphs themselves, by split."""
    from pipeline.models.deploy.recording import recorded_as

    own = {}
    for split, trace in traces.items():
        store = open_store(manifest, group.backbone, split, "cpu")
        if len(store) != trace.rows:
            path = HERE.trace(manifest.task, group.trials[0].key, split)
            remedy = f"run `dvc repro trace@{manifest.task}`"
            raise ArtifactError(f"{path}: {trace.rows} rows of {len(store)}; {remedy}")
        own[split] = recorded_as(trace, segments, store, f"onnxruntime {precision}")
    return own


def _costs(segments: Segments, manifest: Manifest, group: ModelGroup, precision: str, threads: int) -> ExitCosts:
    """What each exit of the graphs costs here."""
    from pipeline.models.costs import costs_in_onnx

    return costs_in_onnx(segments, manifest, group, "onnx-int8" if precision == INT8 else "onnx-float32", threads)


def _measured(
    manifest: Manifest, group: ModelGroup, own: dict[str, Trace], choosing: Choosing, costs: ExitCosts | None
) -> tuple[tuple[Row, ...], tuple[OperatingPoint, ...]]:
    """Choose thresholds on the graphs' own traces, and score them there."""
    trial = group.trials[0]
    alone = Group(group.backbone, group.method, group.multi_exit, (SeedTraces(trial.seed, trial.key, own),))
    criteria = {name: settings for name, settings in choosing.criteria.items() if CRITERIA[name].causal}
    chooser = choosing.chooser.for_model(group.backbone, group.method, () if costs is None else (costs,))
    rows = evaluate_group(alone, criteria, manifest.metrics, chooser, choosing.protocol).rows
    first = manifest.report_splits[0]
    points = tuple(row.points[0] for row in rows if row.split == first and row.criterion is not None)
    return rows, points


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
