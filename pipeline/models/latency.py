"""Wall time of the live engine, beside the layer and FLOP ratios."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.evaluation.criteria import CRITERIA
from pipeline.layout import HERE
from pipeline.models.device import device_of, machine
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit, load_checkpoint
from pipeline.results import ALL_LAYERS, Evaluated, LatencyRow, Manifest, Measured, ModelGroup, OperatingPoint, Selected
from pipeline.tasks.stores import files_of, open_store


@dataclass(frozen=True)
class Work:
    """Rows to time, in batches, with their costs in layers and FLOPs.

    Attributes:
        batches: inputs of the model, on its device.
        layers: layers run at each exit, (exits,).
        flops: FLOPs of a row that leaves at each exit, in the batches' row order, (n, exits).
        full_flops: FLOPs of this model's full pass with one head, (n,).
    """

    batches: Sequence[Mapping[str, Any]]
    layers: np.ndarray
    flops: np.ndarray
    full_flops: np.ndarray


RUNNER = "pipeline.models.latency:time_models"


@dataclass(frozen=True)
class Timing:
    """The timing of one task's models, as a job; the attributes are `measure`'s.

    Attributes:
        device: as in `runtime`.
        node: kind of node that was asked for.
    """

    manifest: Manifest
    selected: Selected
    evaluated: Evaluated
    split: str
    rows: int
    sizes: tuple[int, ...]
    repeats: int
    threads: int
    device: str
    node: str | None

    def reads(self) -> dict[Path, Path]:
        """What its worker reads: where it lies there, and where it lies here."""
        paths: list[Path] = []
        for group in (group for group in self.selected.groups if group.multi_exit):
            model = HERE.model(self.selected.task, group.trials[0].key)
            data = files_of(self.manifest, group.backbone, (self.split,))
            paths += [*data, model / "model.json", model / "model.safetensors"]
        return {path: path for path in paths}

    def writes(self) -> list[Path]:
        """Nothing: the times are its answer."""
        return []


def time_models(timing: Timing, told: Callable[[], object] = lambda: None) -> Measured:
    """Time the models in a worker.

    Args:
        told: called after each model and size of batch.
    """
    return measure(
        timing.manifest,
        timing.selected,
        timing.evaluated,
        timing.split,
        rows=timing.rows,
        sizes=timing.sizes,
        repeats=timing.repeats,
        threads=timing.threads,
        device=device_of(timing.device),
        node=timing.node,
        told=told,
    )


def measure(
    manifest: Manifest,
    selected: Selected,
    evaluated: Evaluated,
    split: str,
    *,
    rows: int,
    sizes: Sequence[int],
    repeats: int,
    threads: int,
    device: str,
    node: str | None = None,
    told: Callable[[], object] = lambda: None,
) -> Measured:
    """Time the multi-exit models of the first seed at each of their operating points.

    Args:
        evaluated: results with the operating points; bounds are left out.
        split: the report split to draw rows from, and to read operating points of.
        rows: number of rows, the same for every model; all where there are fewer.
        sizes: batch sizes, each reported as a mode.
        repeats: timed passes, of which the median counts.
        threads: compute threads to set for this process.
        device: "cpu" or "cuda".
        node: kind of node that was asked for, for the record.
        told: called after each model and size of batch.
    """
    torch.set_num_threads(threads)
    measured: list[LatencyRow] = []
    for group in (group for group in selected.groups if group.multi_exit):
        key, trained = group.trials[0].key, group.trials[0].weights_sha256
        model = load_checkpoint(HERE.model(selected.task, key), sha256=trained).to(device)
        points = _points(evaluated, group, key, split)
        for size in sizes:
            work = _work(model, manifest, group.backbone, split, rows, size, device)
            measured += compare(model, points, work, repeats, partial(
                LatencyRow, backbone=group.backbone, method=group.method, key=key, mode=f"batch {size}"
            ))  # fmt: skip
            told()
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return Measured(device=name, machine=machine(), node=node, threads=threads, rows=tuple(measured))


def _points(evaluated: Evaluated, group: ModelGroup, key: str, split: str) -> list[OperatingPoint]:
    """Operating points of one model, without bounds, in the order of the rows."""
    return [
        row.point(key)
        for row in evaluated.rows
        if (row.backbone, row.method, row.split) == (group.backbone, group.method, split)
        and row.criterion is not None
        and CRITERIA[row.criterion].causal
    ]


def _work(model: MultiExit, manifest: Manifest, backbone: str, split: str, rows: int, size: int, device: str) -> Work:
    """A sample of a split, the same for every model, in batches of similar size."""
    store = open_store(manifest, backbone, split, device)
    sample = np.sort(np.random.default_rng(0).permutation(len(store))[:rows])
    parts = list(store.timed(sample, size))
    # Relative to the model's own full pass, as the times are.
    flops, full = model.backbone.flops(
        store.sizes[np.concatenate(parts)], model.outputs, model.exits, against_itself=True
    )
    layers = np.asarray(model.exits, dtype=np.float64)
    return Work([store.batch(part, device) for part in parts], layers, flops, full)


def compare(
    model: MultiExit, points: Sequence[OperatingPoint], work: Work, repeats: int, row: "partial[LatencyRow]"
) -> list[LatencyRow]:
    """Time operating points of one model, and compare each with the full pass (all layers, one head).

    Repeats are interleaved, so that a busy machine slows all points alike; the median of the repeats counts. An
    untimed pass comes first and gives the exits.

    Args:
        points: the points; the full pass is added in front.
        row: the class of rows, with model and mode already set.
    """
    every = (ALL_LAYERS, *points)
    engines = [LiveEngine.at(model, point) for point in every]
    exits = [answer_all(engine, work.batches) for engine in engines]
    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(repeats):
        for engine, took in zip(engines, seconds, strict=True):
            took.append(_seconds(engine, work.batches))
    rows = len(work.full_flops)
    full = statistics.median(seconds[0])
    measured = []
    for point, took, index in zip(every, seconds, exits, strict=True):
        spent = work.full_flops if point.criterion is None else work.flops[np.arange(rows), index]
        measured.append(
            row(
                point=point,
                examples=rows,
                ms_per_example=round(1000 * statistics.median(took) / rows, 4),
                measured_speedup=round(full / statistics.median(took), 4),
                own_layer_speedup=round(float(work.layers[-1] / work.layers[index].mean()), 4),
                own_flop_speedup=round(float(work.full_flops.sum() / spent.sum()), 4),
            )
        )
    return measured


def answer_all(engine: LiveEngine, batches: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Run the live engine over batches and wait for the device; return each row's 0-based exit, (n,)."""
    return np.concatenate([engine(batch).exit_index.cpu().numpy() for batch in batches])


def _seconds(engine: LiveEngine, batches: Sequence[Mapping[str, Any]]) -> float:
    started = time.perf_counter()
    answer_all(engine, batches)
    return time.perf_counter() - started
