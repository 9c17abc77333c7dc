"""Wall time of the live engines, beside the layer and FLOP ratios."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.layout import HERE
from pipeline.models.deployments import PYTORCH, Deployment, deployments, files_left, refuse_engines
from pipeline.models.device import device_of, machine
from pipeline.models.multi_exit import MultiExit, load_checkpoint
from pipeline.results import Evaluated, LatencyRow, Manifest, Measured, Selected
from pipeline.tasks.stores import files_of, open_store

if TYPE_CHECKING:
    from pipeline.models.settings import Engine


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
    engines: tuple["Engine", ...] = (PYTORCH,)

    def reads(self) -> dict[Path, Path]:
        """What its worker reads: where it lies there, and where it lies here."""
        paths: list[Path] = []
        for group in (group for group in self.selected.groups if group.multi_exit):
            model = HERE.model(self.selected.task, group.trials[0].key)
            data = files_of(self.manifest, group.backbone, (self.split,))
            left = files_left(self.selected.task, group, self.engines)
            paths += [*data, model / "model.json", model / "model.safetensors", *left]
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
        engines=timing.engines,
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
    engines: Sequence["Engine"] = (PYTORCH,),
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
        engines: what the models run in, timed in turn.
        told: called after each model and size of batch.
    """
    refuse_engines(engines, device)
    torch.set_num_threads(threads)
    measured: list[LatencyRow] = []
    for group in (group for group in selected.groups if group.multi_exit):
        key, trained = group.trials[0].key, group.trials[0].weights_sha256
        model = load_checkpoint(HERE.model(selected.task, key), sha256=trained).to(device)
        timed = deployments(selected.task, group, model, evaluated, split, engines, threads)
        for size in sizes:
            work = _work(model, manifest, group.backbone, split, rows, size, device)
            measured += compare(timed, work, repeats, partial(
                LatencyRow, backbone=group.backbone, method=group.method, key=key, mode=f"batch {size}"
            ))  # fmt: skip
            told()
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return Measured(device=name, machine=machine(), node=node, threads=threads, rows=tuple(measured))


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


def compare(timed: Sequence[Deployment], work: Work, repeats: int, row: "partial[LatencyRow]") -> list[LatencyRow]:
    """Time one model at its operating points in each engine, and compare each with the engine's full pass.

    Repeats are interleaved, so that a busy machine slows all alike; the median of the repeats counts. An untimed pass
    comes first and gives the exits.

    Args:
        timed: all layers is among each engine's points.
        row: the class of rows, with model and mode already set.
    """
    exits = [np.concatenate([one.answer(batch) for batch in work.batches]) for one in timed]
    calls = np.array([[_seconds(one, work.batches) for one in timed] for _ in range(repeats)])
    passes = calls.sum(axis=2)  # (repeats, deployments)
    full = {
        (one.engine, one.precision): statistics.median(passes[:, i].tolist())
        for i, one in enumerate(timed)
        if one.point.criterion is None
    }
    return [_row(one, work, calls[:, i], exits[i], full[one.engine, one.precision], row) for i, one in enumerate(timed)]


def _row(
    one: Deployment, work: Work, calls: np.ndarray, index: np.ndarray, full: float, row: "partial[LatencyRow]"
) -> LatencyRow:
    """The row of a deployment.

    Args:
        calls: seconds of each call, (repeats, batches).
        index: exit of each row, from 0, (n,).
        full: seconds of the engine's full pass.
    """
    rows, took = len(index), calls.sum(axis=1).tolist()
    spent = work.full_flops if one.point.criterion is None else work.flops[np.arange(rows), index]
    p50, p99 = (1000 * np.percentile(calls, (50, 99))).tolist()
    return row(
        **{"point": one.point, "engine": one.engine, "precision": one.precision, "score": one.score},
        examples=rows,
        exits=tuple(np.bincount(index, minlength=len(work.layers)).tolist()),
        ms_per_example=round(1000 * statistics.median(took) / rows, 4),
        repeats_ms=tuple(round(1000 * seconds / rows, 4) for seconds in took),
        p50_ms=round(p50, 4),
        p99_ms=round(p99, 4),
        measured_speedup=round(full / statistics.median(took), 4),
        own_layer_speedup=round(float(work.layers[-1] / work.layers[index].mean()), 4),
        own_flop_speedup=round(float(work.full_flops.sum() / spent.sum()), 4),
    )


def _seconds(one: Deployment, batches: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of each call."""
    ends = [time.perf_counter()]
    for batch in batches:
        one.answer(batch)
        ends.append(time.perf_counter())
    return [end - begin for begin, end in pairwise(ends)]
