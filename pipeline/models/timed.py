"""Deployments of one model timed in turn on the same batches, beside the matrix products that they consist of."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.models.deployments import Deployment
from pipeline.models.roof import MatrixRate, Product
from pipeline.results import LatencyRow, Reached, Roof


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

    def by_size(self) -> list[int]:
        """Indices of the batches, those of the fewest values first."""
        sizes = [next(iter(batch.values())).numel() for batch in self.batches]
        return sorted(range(len(sizes)), key=sizes.__getitem__)

    @property
    def median(self) -> int:
        """Index of the batch of median size."""
        return self.by_size()[len(self.batches) // 2]

    @property
    def largest(self) -> int:
        """Index of the largest batch."""
        return self.by_size()[-1]


def compare(
    timed: Sequence[Deployment],
    work: Work,
    repeats: int,
    row: "partial[LatencyRow]",
    rate: MatrixRate,
    roof: "partial[Roof]",
) -> tuple[list[LatencyRow], Roof]:
    """Time one model at its operating points in each engine, and compare each with the engine's full pass.

    Repeats are interleaved, so that a busy machine slows all alike; the median of the repeats counts. An untimed pass
    comes first and gives the exits.

    Args:
        timed: all layers is among each engine's points.
        row, roof: the classes of results, with model and setting already set.
        rate: of the products of the batch of median size.
    """
    exits = [np.concatenate([one.answer(batch) for batch in work.batches]) for one in timed]
    taken = []
    for _ in range(repeats):
        taken.append([_seconds(one, work.batches) for one in timed])
        rate.run()
    calls = np.array(taken)  # (repeats, deployments, batches)
    passes = calls.sum(axis=2)
    full = {one.runs_in: i for i, one in enumerate(timed) if one.point.criterion is None}
    rows = [
        _row(one, work, calls[:, i], exits[i], statistics.median(passes[:, full[one.runs_in]].tolist()), row)
        for i, one in enumerate(timed)
    ]
    rates = rate.rates()
    reached = [
        Reached(
            engine=one.engine,
            precision=one.precision,
            share=round(rate.flops / 1e9 / rates[one.precision] / float(np.median(calls[:, i, work.median])), 4),
        )
        for i, one in enumerate(timed)
        if i in full.values() and one.precision in rates
    ]
    shapes = tuple(_shape(one) for one in rate.products)
    return rows, roof(
        shapes=shapes, rates={name: round(value, 2) for name, value in rates.items()}, reached=tuple(reached)
    )


def _shape(product: Product) -> tuple[int, int, int, int]:
    return product.rows, product.inner, product.outer, product.times


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
