"""Wall time of the live engine against what the layer and FLOP ratios promise."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.criteria import Criterion
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit

Point = tuple[str | None, Criterion | None, float]
"""Name, criterion and threshold of an operating point."""


def answer_all(engine: LiveEngine, batches: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Run the live engine over batches; the 0-based exit that answered each row, (n,). Waits for the device."""
    return np.concatenate([engine(batch).exit_index.cpu().numpy() for batch in batches])


def _seconds(engine: LiveEngine, batches: Sequence[Mapping[str, Any]]) -> float:
    started = time.perf_counter()
    answer_all(engine, batches)
    return time.perf_counter() - started


def compare(
    model: MultiExit,
    points: Sequence[Point],
    batches: Sequence[Mapping[str, Any]],
    layers: np.ndarray,
    flops: np.ndarray,
    full_flops: np.ndarray,
    repeats: int,
) -> list[dict[str, Any]]:
    """Time several operating points of one model in turns and compare each with the full pass, all layers and one head.

    Repeats are interleaved, so that a busy machine slows all points alike; the median of the repeats counts. An
    untimed pass comes first, and gives the exits.

    Args:
        points: name, criterion and threshold; the full pass (None, None, inf) is added in front.
        layers, flops: cost of leaving at each exit, (exits,) and (n, exits) in the batches' row order.
        full_flops: of the plain pass, (n,).
    """
    all_points: list[Point] = [(None, None, np.inf), *points]
    engines = [LiveEngine(model, criterion, threshold) for _, criterion, threshold in all_points]
    exits = [answer_all(engine, batches) for engine in engines]
    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(repeats):
        for engine, took in zip(engines, seconds, strict=True):
            took.append(_seconds(engine, batches))
    rows = len(full_flops)
    full = statistics.median(seconds[0])
    out = []
    for (name, _, threshold), took, index in zip(all_points, seconds, exits, strict=True):
        spent = full_flops.sum() if name is None else flops[np.arange(rows), index].sum()
        out.append(
            {
                "criterion": name,
                "threshold": None if np.isinf(threshold) else threshold,
                "examples": rows,
                "ms_per_example": round(1000 * statistics.median(took) / rows, 4),
                "measured_speedup": round(full / statistics.median(took), 4),
                "layer_speedup": round(float(layers[-1] / layers[index].mean()), 4),
                "flop_speedup": round(float(full_flops.sum() / spent), 4),
            }
        )
    return out
