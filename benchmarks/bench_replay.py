"""Replay alone: every criterion at its own whole sweep, score and speed-ups at each threshold, 2 and 3 classes.

Criteria that learn do so on 2,000 rows; all replay at MNLI's size (9,815 rows) and at a million rows, there on one
thread and on two. Prints the best of a few runs, processor seconds on one thread and wall seconds on two, and the peak
of NumPy's memory beside the trace. Exit code 1 when a promise is broken.
python benchmarks/bench_replay.py [--classes 3] [--threads 2]
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from pipeline.evaluation.blocks import set_threads
from pipeline.evaluation.criteria import CRITERIA, Criterion, make
from pipeline.evaluation.sweep import Sweep, sweep
from pipeline.evaluation.trace import Trace

SELECTION, SMALL, LARGE, EXITS = 2_000, 9_815, 1_000_000, 12
SMALL_SECONDS, LARGE_SECONDS, GROWTH, BYTES = 1.0, 15.0, 1.5, 4.0
"""The promises: processor seconds of all criteria at MNLI's size; wall seconds at a million rows on two threads; the
largest time ratio over row ratio; peak bytes beside the trace per row and exit."""


def made_up_trace(rows: int, classes: int, seed: int = 0) -> Trace:
    """Answers that get better with depth, with errors that neighbouring exits share; made a part at a time."""
    generator = np.random.default_rng(seed)
    depth = np.arange(1, EXITS + 1, dtype=np.float32)
    labels = generator.integers(classes, size=rows)
    logits = generator.standard_normal((rows, EXITS, classes), dtype=np.float32)
    np.cumsum(logits, axis=1, out=logits)
    logits /= np.sqrt(depth)[:, None]
    for c in range(classes):
        logits[labels == c, :, c] += 0.3 * depth
    costs = generator.integers(10, 128, size=rows)[:, None] * np.arange(1.0, EXITS + 1)
    layers, truth = depth.astype(np.float64), labels.astype(np.float64)
    channels = {"lte": generator.random((rows, EXITS), dtype=np.float32)}
    return Trace("classification", logits, truth, np.arange(rows), layers, costs, costs[:, -1], channels=channels)


def replay(trace: Trace, criterion: Criterion) -> Sweep:
    """Exits, speed-ups and score at every threshold of the criterion's own sweep."""
    swept = sweep(trace, criterion)
    swept.metrics(("accuracy",))
    return swept


def best(run: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    """Seconds of the fastest run."""
    taken = []
    for _ in range(times):
        start = clock()
        run()
        taken.append(clock() - start)
    return min(taken)


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that a run held at one time, results included."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def measure(classes: int, threads: int) -> bool:
    """Print the table of one number of classes; return whether all promises were kept."""
    selection, small, large = (made_up_trace(rows, classes, rows) for rows in (SELECTION, SMALL, LARGE))
    make("temperature").fit(selection)  # imports SciPy
    totals, most = np.zeros(4), 0.0
    print(f"\n{classes} classes, {EXITS} exits; seconds")
    print(f"{'criterion':<20}{'settings':>9}{'fit':>8}{f'{SMALL:,}':>8}{f'{LARGE:,}':>11}{f'{threads} threads':>11}")
    for name in CRITERIA:
        unfitted = make(name)
        fit = best(lambda: unfitted.fit(selection), 1, time.process_time)  # noqa: B023
        criterion = unfitted.fit(selection)
        settings = len(replay(small, criterion).thresholds)
        taken = [fit, best(lambda: replay(small, criterion), 5, time.process_time)]  # noqa: B023
        taken.append(best(lambda: replay(large, criterion), 2, time.process_time))  # noqa: B023
        set_threads(threads)
        taken.append(best(lambda: replay(large, criterion), 2, time.perf_counter))  # noqa: B023
        most = max(most, peak_bytes(lambda: replay(large, criterion)) / (LARGE * EXITS))  # noqa: B023
        set_threads(1)
        totals += taken
        print(f"{name:<20}{settings:>9}{taken[0]:>8.3f}{taken[1]:>8.3f}{taken[2]:>11.3f}{taken[3]:>11.3f}", flush=True)
    print(f"{'in total':<29}{totals[0]:>8.3f}{totals[1]:>8.3f}{totals[2]:>11.3f}{totals[3]:>11.3f}")
    growth = (totals[2] / totals[1]) / (LARGE / SMALL)
    print(f"at {SMALL:,} rows: {totals[1]:.3f} s (promised: under {SMALL_SECONDS:g} s)")
    print(f"at {LARGE:,} rows, {threads} threads: {totals[3]:.2f} s (promised on two: under {LARGE_SECONDS:g} s)")
    print(f"time ratio over row ratio: {growth:.2f} (promised: at most {GROWTH})")
    print(f"peak beside the trace: {most:.1f} bytes per row and exit (promised: at most {BYTES:g})")
    return bool(totals[1] < SMALL_SECONDS and totals[3] < LARGE_SECONDS and growth <= GROWTH and most <= BYTES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 3])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    kept = [measure(classes, given.threads) for classes in given.classes]
    return int(not all(kept))


if __name__ == "__main__":
    raise SystemExit(main())
