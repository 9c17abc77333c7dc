"""Wall time of what can be deployed, beside the layer and FLOP ratios, the machine's matrix rate, and memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.layout import HERE
from pipeline.models.bf16 import InBf16
from pipeline.models.deployments import (
    BF16,
    PYTORCH,
    deployments,
    files_left,
    parts_of,
    place_of,
    refuse_engines,
    refuse_threads,
)
from pipeline.models.device import cores, device_of, machine
from pipeline.models.memory import measure_memory
from pipeline.models.multi_exit import MultiExit, load_checkpoint
from pipeline.models.own_traces import Choosing
from pipeline.models.packed import ready
from pipeline.models.roof import MatrixRate, products_of
from pipeline.models.timed import Work, compare
from pipeline.results import Evaluated, LatencyRow, Manifest, Measured, Memory, ModelGroup, Roof, Selected
from pipeline.results.latency import RunsIn
from pipeline.results.traces import SELECTION
from pipeline.tasks.stores import files_of, open_store

RUNNER = "pipeline.models.latency:time_models"


@dataclass(frozen=True)
class Timing:
    """The timing of one task's models, as a job; the attributes are `measure`'s.

    Attributes:
        threads: those that latency asks for; None: `usual`.
        usual: `runtime.threads`, of which the worker takes as many as it has cores.
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
    threads: tuple[int, ...] | None
    usual: int
    device: str
    node: str | None
    engines: tuple[RunsIn, ...] = (PYTORCH,)
    choosing: Choosing | None = None
    code: str = ""

    def reads(self) -> dict[Path, Path]:
        """What its worker reads: where it lies there, and where it lies here."""
        paths: list[Path] = []
        for group in (group for group in self.selected.groups if group.multi_exit):
            model = HERE.model(self.selected.task, group.trials[0].key)
            splits = [self.split]
            if BF16 in self.engines:
                splits = [SELECTION, *self.manifest.report_splits]
                paths += [HERE.trace(self.selected.task, group.trials[0].key, split) for split in splits]
            data = files_of(self.manifest, group.backbone, splits)
            left = files_left(self.selected.task, group, self.engines)
            paths += [*data, model / "model.json", model / "model.safetensors", *left]
        return {path: path for path in paths}

    def writes(self) -> list[Path]:
        """Nothing: the times are its answer."""
        return []


def time_models(timing: Timing, told: Callable[[], object] = lambda: None) -> Measured:
    """Time the models in a worker.

    Args:
        told: called after each model, number of threads and size of batch.
    """
    return measure(
        timing.manifest,
        timing.selected,
        timing.evaluated,
        timing.split,
        rows=timing.rows,
        sizes=timing.sizes,
        repeats=timing.repeats,
        threads=timing.threads or (min(timing.usual, cores()),),
        device=device_of(timing.device),
        node=timing.node,
        engines=timing.engines,
        choosing=timing.choosing,
        code=timing.code,
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
    threads: Sequence[int],
    device: str,
    node: str | None = None,
    engines: Sequence[RunsIn] = (PYTORCH,),
    choosing: Choosing | None = None,
    code: str = "",
    told: Callable[[], object] = lambda: None,
) -> Measured:
    """Time the multi-exit models of the first seed at each of their operating points.

    Args:
        evaluated: results with the operating points; bounds are left out.
        split: the report split to draw rows from, and to read operating points of.
        rows: number of rows, the same for every model; all where there are fewer.
        sizes: batch sizes, each reported as a mode.
        repeats: timed passes, of which the median counts.
        threads: numbers of compute threads, each timed.
        device: "cpu" or "cuda".
        node: kind of node that was asked for, for the record.
        engines: what the models run in, timed in turn.
        choosing: how thresholds are chosen, for an engine whose points are made here (bf16).
        code: identity of the code that records, likewise.
        told: called after each model, number of threads and size of batch.

    Raises:
        UnsupportedError: an engine that does not run here, or more threads than cores.
    """
    refuse_engines(engines, device)
    refuse_threads(threads)
    measured: list[LatencyRow] = []
    roofs: list[Roof] = []
    memory: list[Memory] = []
    for group in (group for group in selected.groups if group.multi_exit):
        trial, names = group.trials[0], {"backbone": group.backbone, "method": group.method}
        model = ready(load_checkpoint(HERE.model(selected.task, trial.key), sha256=trial.weights_sha256), device)
        bf16 = None
        if BF16 in engines and choosing is not None:
            bf16 = InBf16.of(manifest, group, choosing, threads[0], device, code)
        for count in threads:
            torch.set_num_threads(count)
            timed = deployments(selected.task, group, model, evaluated, split, engines, count, bf16)
            for size in sizes:
                work = _work(model, manifest, group.backbone, split, rows, size, device)
                setting: dict[str, Any] = {**names, "mode": f"batch {size}", "threads": count}
                products = products_of(model, work.batches[work.median])
                rate = MatrixRate(products, dict.fromkeys(one.precision for one in timed), count, device)
                row = partial(LatencyRow, key=trial.key, **setting)
                found, roof = compare(timed, work, repeats, row, rate, partial(Roof, **setting))
                measured += found
                roofs.append(roof)
                told()
        work = _work(model, manifest, group.backbone, split, rows, max(sizes), device)
        memory += _memory(selected.task, group, engines, work.batches[work.largest], threads[0], device)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return Measured(
        device=name, machine=machine(), node=node, rows=tuple(measured), roofs=tuple(roofs), memory=tuple(memory)
    )


def _memory(
    task: str, group: ModelGroup, engines: Sequence[RunsIn], batch: Mapping[str, Any], threads: int, device: str
) -> Iterator[Memory]:
    """What each engine needs for a batch, in a process of its own."""
    arrays = {name: values.cpu().numpy() for name, values in batch.items()}
    for engine in engines:
        taken = measure_memory(engine, place_of(task, group, engine), arrays, threads, device)
        if taken is None:
            continue
        name, precision = parts_of(engine)
        yield Memory(
            backbone=group.backbone,
            method=group.method,
            engine=name,
            precision=precision,
            batch=len(next(iter(arrays.values()))),
            libraries_mib=round(taken[0], 1),
            peak_mib=round(taken[1], 1),
        )


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
