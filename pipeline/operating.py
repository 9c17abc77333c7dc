"""Operating points: chosen on selection rows, reported on report rows, as medians over seeds."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.criteria import Criterion, fitted_values, make
from pipeline.intervals import median_interval
from pipeline.metrics import score
from pipeline.replay import NEVER, Sweep, sweep
from pipeline.traces import Trace

SELECTION = "selection"
IDENTITY = ["backbone", "method", "criterion", "seed", "split"]
CURVE_COLUMNS = [*IDENTITY, "threshold", "score", "layer_speedup", "flop_speedup"]


@dataclass(frozen=True)
class Choice:
    """A threshold, and whether it lies in the speed-up window on the rows that chose it."""

    threshold: float
    in_window: bool


@dataclass(frozen=True)
class Seeded:
    """One seed of a group: its trial's key and its traces by split (selection and the report splits)."""

    seed: int
    key: str
    traces: Mapping[str, Trace]


def choose(swept: Sweep, metrics: tuple[str, ...], window: tuple[float, float]) -> Choice:
    """The threshold with the best score whose layer speed-up lies in the window (the paper, 4.2).

    Ties go to the faster one. Where no threshold lies in the window, the one nearest to it is taken and says so.
    """
    low, high = window
    speed = swept.layer_speedup
    value = np.nan_to_num(swept.metrics(metrics)["score"], nan=-np.inf)
    inside = (speed >= low) & (speed <= high)
    if inside.any():
        candidates = np.flatnonzero(inside)
        best = max(candidates, key=lambda i: (value[i], speed[i]))
        return Choice(float(swept.thresholds[best]), True)
    distance = np.maximum(low - speed, speed - high)
    near = np.flatnonzero(distance == distance.min())
    best = max(near, key=lambda i: (value[i], speed[i]))
    return Choice(float(swept.thresholds[best]), False)


def evaluate_group(
    labels: Mapping[str, Any],
    seeds: list[Seeded],
    criteria: Mapping[str, Mapping[str, float]],
    metrics: tuple[str, ...],
    window: tuple[float, float],
    *,
    report_splits: list[str],
    selected_on: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Evaluate one group's traces: rows (one per criterion and report split), exits, and curve rows.

    Args:
        labels: what identifies the group in each row, such as backbone and method.
        criteria: name to settings; none for a single-exit method. Those without a meaning for the task are left out,
            and those that read a channel which the method's models do not record. What learns, learns from selection
            rows, each seed for itself.
        selected_on: "selection", or the report split that also chose (the paper's protocol).
    """
    rows = [_row(labels, None, {}, seeds, [NEVER] * len(seeds), split, metrics) for split in report_splits]
    for row in rows:
        row |= {"in_window": True, "selected_on": selected_on}
    curves: list[dict[str, Any]] = []
    for name, settings in criteria.items():
        criterion = make(name, settings)
        if not criterion.applies_to(seeds[0].traces[SELECTION]):
            continue
        fitted = [criterion.fit(member.traces[SELECTION]) for member in seeds]
        swept = [sweep(member.traces[SELECTION], rule) for member, rule in zip(seeds, fitted, strict=True)]
        choices = [choose(s, metrics, window) for s in swept]
        thresholds = [choice.threshold for choice in choices]
        for split in report_splits:
            row = _row(labels, fitted, settings, seeds, thresholds, split, metrics)
            row |= {"in_window": all(choice.in_window for choice in choices), "selected_on": selected_on}
            rows.append(row)
        for split in (SELECTION, *report_splits):
            for member, rule in zip(seeds, fitted, strict=True):
                curves += _curve(labels, rule, member, split, metrics)
    exits = [_exits(labels, member, split, metrics) for split in (SELECTION, *report_splits) for member in seeds]
    return rows, exits, curves


def _row(
    labels: Mapping[str, Any],
    criteria: list[Criterion] | None,
    settings: Mapping[str, float],
    seeds: list[Seeded],
    thresholds: list[float],
    split: str,
    metrics: tuple[str, ...],
) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for member, rule, threshold in zip(seeds, criteria or [make("fixed")] * len(seeds), thresholds, strict=True):
        point = sweep(member.traces[split], rule, np.array([threshold]))
        found = point.metrics(metrics) | {"layer_speedup": point.layer_speedup, "flop_speedup": point.flop_speedup}
        if criteria is None:  # a plain pass asks no early head
            found["flop_speedup"] = np.array([1.0])
        for name, value in found.items():
            values.setdefault(name, []).append(float(value[0]))
    intervals = {name: median_interval(v) for name, v in values.items()}
    return {
        **labels,
        "criterion": criteria[0].name if criteria else None,
        "settings": dict(settings),
        "fitted": [fitted_values(rule) for rule in criteria or []],
        "split": split,
        "seeds": [member.seed for member in seeds],
        "keys": [member.key for member in seeds],
        "thresholds": [None if np.isinf(t) else t for t in thresholds],
        "score": intervals["score"],
        "metrics": {name: intervals[name] for name in metrics},
        "layer_speedup": intervals["layer_speedup"],
        "flop_speedup": intervals["flop_speedup"],
    }


def _curve(
    labels: Mapping[str, Any], criterion: Criterion, member: Seeded, split: str, metrics: tuple[str, ...]
) -> list[dict[str, Any]]:
    swept = sweep(member.traces[split], criterion)
    values = swept.metrics(metrics)["score"]
    common = {**labels, "criterion": criterion.name, "seed": member.seed, "split": split}
    return [
        {
            **common,
            "threshold": round(float(t), 8),
            "score": round(float(s), 6),
            "layer_speedup": round(float(a), 6),
            "flop_speedup": round(float(b), 6),
        }
        for t, s, a, b in zip(swept.thresholds, values, swept.layer_speedup, swept.flop_speedup, strict=True)
    ]


def _exits(labels: Mapping[str, Any], member: Seeded, split: str, metrics: tuple[str, ...]) -> dict[str, Any]:
    trace = member.traces[split]
    scores = score(metrics, trace.answers().T, trace.labels)
    return {
        **labels,
        "split": split,
        "seed": member.seed,
        "key": member.key,
        "layers": [int(layer) for layer in trace.layers],
        "scores": [None if np.isnan(s) else round(float(s), 6) for s in scores],
    }


def curves_csv(rows: Iterable[Mapping[str, Any]], columns: list[str] | None = None) -> str:
    """Curve rows as CSV text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
