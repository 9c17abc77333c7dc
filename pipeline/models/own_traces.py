"""A model in another arithmetic than PyTorch's float32: its own traces, and the points that are chosen on them.

What is timed, exported and served is judged in the form in which it runs (docs/design/deploy.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.choosing import Chooser, make_chooser
from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.group import evaluate_group
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.settings import Evaluate
from pipeline.evaluation.trace import Trace, load_trace, save_trace
from pipeline.layout import HERE
from pipeline.results import ExitCosts, Manifest, ModelGroup, OperatingPoint, Row
from pipeline.results.traces import SELECTION
from pipeline.storage import claimed, content_key
from pipeline.tasks.splits import Protocol
from pipeline.tasks.stores import Store, inputs_hash, open_store

Record = Callable[[Store], tuple[np.ndarray, dict[str, np.ndarray]]]
"""Logits of every row at every exit, (n, exits, outputs) float32, and the channels, (n, exits) each."""


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


def torch_traces(manifest: Manifest, group: ModelGroup) -> dict[str, Trace]:
    """PyTorch's traces of the first seed's model by split, selection first."""
    key, remedy = group.trials[0].key, f"run `dvc repro trace@{manifest.task}`"
    splits = (SELECTION, *manifest.report_splits)
    return {split: load_trace(HERE.trace(manifest.task, key, split), remedy) for split in splits}


def own_traces(
    manifest: Manifest,
    group: ModelGroup,
    traces: Mapping[str, Trace],
    record: Record,
    arithmetic: Mapping[str, str],
    device: str = "cpu",
) -> dict[str, Trace]:
    """The same rows and the same model through other arithmetic, by split; each is recorded once and cached.

    Args:
        traces: PyTorch's; labels and costs are taken from them.
        arithmetic: all that the answers depend on beside the rows, such as the hashes of graphs, the library's version
            and the processor; under `engine` its name, for the provenance.

    Raises:
        ArtifactError: a trace has not the rows of its split.
    """
    own = {}
    for split, trace in traces.items():
        store = open_store(manifest, group.backbone, split, device)
        if len(store) != trace.rows:
            path = HERE.trace(manifest.task, group.trials[0].key, split)
            remedy = f"run `dvc repro trace@{manifest.task}`"
            raise ArtifactError(f"{path}: {trace.rows} rows of {len(store)}; {remedy}")
        key = content_key({**arithmetic, "split": split, "rows": inputs_hash(manifest, group.backbone, split)})
        with claimed(HERE.claims, f"own-traces-{key}"):
            logits, channels = _cached(key, trace, store, record, arithmetic["engine"])
        provenance = trace.provenance | {"engine": arithmetic["engine"]}
        own[split] = replace(trace, logits=logits, channels=channels, provenance=provenance)
    return own


def _cached(
    key: str, trace: Trace, store: Store, record: Record, engine: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What was recorded under a key, or is now."""
    path = HERE.recorded / f"{key}.safetensors"
    try:
        stored = load_trace(path)
        if stored.logits.shape == trace.logits.shape:
            return stored.logits, stored.channels
    except ArtifactError:
        pass  # not there, or cut short
    logits, channels = record(store)
    provenance = trace.provenance | {"engine": engine}
    save_trace(replace(trace, logits=logits, channels=channels, provenance=provenance), path)
    return logits, channels


def own_points(
    manifest: Manifest, group: ModelGroup, own: Mapping[str, Trace], choosing: Choosing, costs: ExitCosts | None
) -> tuple[tuple[Row, ...], tuple[OperatingPoint, ...]]:
    """Choose thresholds on a model's own traces, and score them there; the points that the rows prefer come first.

    Args:
        costs: of its exits in its engine, for a chooser that reads them.
    """
    trial = group.trials[0]
    alone = Group(group.backbone, group.method, group.multi_exit, (SeedTraces(trial.seed, trial.key, own),))
    criteria = {name: settings for name, settings in choosing.criteria.items() if CRITERIA[name].causal}
    chooser = choosing.chooser.for_model(group.backbone, group.method, () if costs is None else (costs,))
    rows = evaluate_group(alone, criteria, manifest.metrics, chooser, choosing.protocol).rows
    first = manifest.report_splits[0]
    early = [row for row in rows if row.split == first and row.criterion is not None]
    points = tuple(row.points[0] for row in sorted(early, key=lambda row: not row.preferred))
    return rows, points
