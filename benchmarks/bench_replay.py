"""Replay alone: 11 patiences, 100 confidences and 100 entropies on traces of 12 exits and 3 classes.

At MNLI's size (9,815 rows) all 211 settings take under a second; a million rows take as much longer as there are more
rows. Prints CPU seconds of this process, the best of a few runs, and the ratio of both ratios; exit code 1 when either
promise is broken.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout, not installed

from pipeline.evaluation.criteria import make
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace

SMALL, LARGE, EXITS, CLASSES = 9_815, 1_000_000, 12, 3
SETTINGS = {
    "patience": np.arange(1.0, 12),
    "confidence": np.linspace(1 / 3, 0.9999, 100),
    "entropy": np.linspace(-np.log(3), -0.0001, 100),
}
SECONDS, GROWTH = 1.0, 1.5
"""The promises: seconds at MNLI's size, and the largest time ratio over row ratio."""


def made_up_trace(rows: int) -> Trace:
    """Answers that get better with depth, with errors that neighbouring exits share; made a part at a time."""
    generator = np.random.default_rng(0)
    depth = np.arange(1, EXITS + 1, dtype=np.float32)
    labels = generator.integers(CLASSES, size=rows)
    logits = generator.standard_normal((rows, EXITS, CLASSES), dtype=np.float32)
    np.cumsum(logits, axis=1, out=logits)
    logits /= np.sqrt(depth)[:, None]
    for c in range(CLASSES):
        logits[labels == c, :, c] += 0.3 * depth
    costs = generator.integers(10, 128, size=rows)[:, None] * np.arange(1.0, EXITS + 1)
    layers, truth = depth.astype(np.float64), labels.astype(np.float64)
    return Trace("classification", logits, truth, np.arange(rows), layers, costs, costs[:, -1])


def replay_all(trace: Trace) -> dict[str, float]:
    """CPU seconds per criterion: every exit, speed-up and score of all its settings."""
    took = {}
    for name, thresholds in SETTINGS.items():
        start = time.process_time()
        sweep(trace, make(name), thresholds).metrics(("accuracy",))
        took[name] = time.process_time() - start
    return took


def best(run: Callable[[], dict[str, float]], times: int) -> dict[str, float]:
    return min((run() for _ in range(times)), key=lambda took: sum(took.values()))


def main() -> int:
    small = made_up_trace(SMALL)
    replay_all(small)  # first calls import and allocate
    few = best(lambda: replay_all(small), 5)
    large = made_up_trace(LARGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = best(lambda: replay_all(large), 2)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{'criterion':<12}{'settings':>9}{f'{SMALL:,} rows':>14}{f'{LARGE:,} rows':>17}")
    for name, thresholds in SETTINGS.items():
        print(f"{name:<12}{len(thresholds):>9}{few[name]:>13.3f}s{many[name]:>16.3f}s")
    short, long = sum(few.values()), sum(many.values())
    print(f"{'in total':<12}{sum(map(len, SETTINGS.values())):>9}{short:>13.3f}s{long:>16.3f}s")
    growth = (long / short) / (LARGE / SMALL)
    print(f"time ratio over row ratio: {growth:.2f} (promised: at most {GROWTH})")
    print(f"at {SMALL:,} rows: {short:.3f} s (promised: under {SECONDS:g} s)")
    print(f"peak memory beyond the trace at {LARGE:,} rows: {max(grown, 0):.0f} MiB")
    return int(short >= SECONDS or growth > GROWTH)


if __name__ == "__main__":
    raise SystemExit(main())
