"""What each exit costs in an engine: the time to run to it with the exits on the way, one row at a time."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.evaluation.criteria.base import State
from pipeline.evaluation.criteria.fixed import FixedExit
from pipeline.layout import HERE
from pipeline.models.deploy.engine import GraphEngine
from pipeline.models.deploy.segments import Segments
from pipeline.models.deployments import BF16, ONNX, refuse_engines
from pipeline.models.device import device_of, machine
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint
from pipeline.models.packed import ready
from pipeline.results import ExitCosts, Manifest, ModelGroup, Selected
from pipeline.results.latency import RunsIn
from pipeline.results.traces import SELECTION
from pipeline.tasks.stores import open_store

ROWS, REPEATS = 24, 3
"""Selection rows that are timed, and how often; of the repeats the median counts."""
Batch = Mapping[str, Any]
Answers = Callable[[Batch], object]


class EveryExit(FixedExit):
    """One exit for all rows, with each exit before it asked behind its layer, as by a criterion that may leave there;
    one that waits, such as patience, costs no more."""

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        return 1


def costs_of(selected: Selected, manifest: Manifest, engine: RunsIn, threads: int, device: str) -> list[ExitCosts]:
    """The costs of the exits of each group's first model; other seeds have the same layers.

    Args:
        engine: PyTorch, or ONNX Runtime on graphs that are written for this and removed again.
        device: as in `runtime`.

    Raises:
        UnsupportedError: the engine does not run here.
        ArtifactError: a model is missing.
    """
    groups = [group for group in selected.groups if group.multi_exit]
    device = device_of(device)
    refuse_engines([engine], device, key="evaluate.choose.engine")
    found = []
    for group in groups:
        trial = group.trials[0]
        model = load_checkpoint(HERE.model(selected.task, trial.key), sha256=trial.weights_sha256)
        if not engine.startswith(ONNX):
            model = ready(model, device, torch.bfloat16 if engine == BF16 else torch.float32)
            found.append(costs_in_torch(model, manifest, group, engine, threads, device))
            continue
        with tempfile.TemporaryDirectory() as folder:
            segments = _segments(model, Path(folder), engine, manifest, group.backbone, threads)
            found.append(costs_in_onnx(segments, manifest, group, engine, threads))
    return found


def costs_in_torch(
    model: MultiExit, manifest: Manifest, group: ModelGroup, engine: RunsIn, threads: int, device: str
) -> ExitCosts:
    """The costs of the exits of a model on its device."""
    torch.set_num_threads(threads)
    return _costs(_in_torch(model), manifest, group, engine, threads, device, model.exits)


def costs_in_onnx(segments: Segments, manifest: Manifest, group: ModelGroup, engine: RunsIn, threads: int) -> ExitCosts:
    """The costs of the exits of exported graphs.

    Args:
        threads: those that the graphs were opened with.
    """
    early: list[Answers] = [GraphEngine(segments, EveryExit(), at + 1.0) for at in range(len(segments.exits))]
    return _costs([*early, GraphEngine(segments, None)], manifest, group, engine, threads, "cpu", segments.exits)


def _in_torch(model: MultiExit) -> list[Answers]:
    early: list[Answers] = [LiveEngine(model, EveryExit(), float(at)) for at in range(1, len(model.exits) + 1)]
    return [*early, LiveEngine(model, None)]


def _segments(
    model: MultiExit, folder: Path, engine: RunsIn, manifest: Manifest, backbone: str, threads: int
) -> Segments:
    from pipeline.models.deploy.graphs import shape_of, write_graphs
    from pipeline.models.deploy.quantised import calibration_rows, write_int8

    written, precision = write_graphs(model, folder, manifest.modality == "image"), engine.removeprefix("onnx-")
    files = written
    if precision != "float32":
        files = write_int8(folder, written, calibration_rows(manifest, backbone))
    return Segments.open(folder, shape_of(model, {precision: files}), precision, threads)


def _costs(
    every: Sequence[Answers],
    manifest: Manifest,
    group: ModelGroup,
    engine: RunsIn,
    threads: int,
    device: str,
    exits: Sequence[int],
) -> ExitCosts:
    """Time every way to answer, the exits in their order and then all layers, in turn on the same rows."""
    store = open_store(manifest, group.backbone, SELECTION, device)
    sample = np.sort(np.random.default_rng(0).permutation(len(store))[:ROWS])
    batches = [store.batch(rows, device) for rows in store.timed(sample, 1)]
    taken = np.array([[[_seconds(one, batch) for one in every] for batch in batches] for _ in range(1 + REPEATS)])
    *ms, full = (1000 * np.median(taken[1:], axis=0).mean(axis=0)).round(4).tolist()  # the first is to warm up
    assert len(ms) == len(exits)
    return ExitCosts(
        backbone=group.backbone,
        method=group.method,
        engine=engine,
        machine=torch.cuda.get_device_name() if device == "cuda" else machine(),
        threads=threads,
        rows=len(batches),
        ms=tuple(ms),
        full_ms=full,
    )


def _seconds(answers: Answers, batch: Batch) -> float:
    began = time.perf_counter()
    answers(batch)
    return time.perf_counter() - began
