"""Operating points: chosen on selection rows, reported on report rows, as medians over seeds."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.choosing import Rule, fit_and_choose
from pipeline.evaluation.criteria import Criterion, fitted_values, make
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.intervals import median_interval
from pipeline.evaluation.metrics import score
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace

SELECTION = "selection"
IDENTITY = ["backbone", "method", "criterion", "seed", "split"]
CURVE_COLUMNS = [*IDENTITY, "threshold", "score", "layer_speedup", "flop_speedup"]


@dataclass(frozen=True)
class Seeded:
    """One seed of a group: its trial's key and its traces by split (selection and the report splits)."""

    seed: int
    key: str
    traces: Mapping[str, Trace]


@dataclass(frozen=True)
class Evaluation:
    """What evaluating gives, as docs/results-schema.md has it.

    Attributes:
        rows: one per group, criterion and report split.
        exits: one per group, seed and split.
        curves: every setting of every criterion, seed and split.
        diagnosis: one per multi-exit group, seed and report split.
    """

    rows: list[dict[str, Any]]
    exits: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    diagnosis: list[dict[str, Any]]

    def stored(self) -> dict[str, Any]:
        """The part that goes into JSON; the curves are a CSV file of their own."""
        return {"rows": self.rows, "exits": self.exits, "diagnosis": self.diagnosis}


def merged(parts: Iterable[Evaluation]) -> Evaluation:
    """Several groups' evaluations as one, in order."""
    found = Evaluation([], [], [], [])
    for part in parts:
        for mine, more in zip(vars(found).values(), vars(part).values(), strict=True):
            mine.extend(more)
    return found


def evaluate_group(
    labels: Mapping[str, Any],
    seeds: list[Seeded],
    criteria: Mapping[str, Mapping[str, float]],
    metrics: tuple[str, ...],
    rule: Rule,
    *,
    report_splits: list[str],
    selected_on: str,
) -> Evaluation:
    """Evaluate one group's traces.

    Args:
        labels: what identifies the group in each row, such as backbone and method.
        criteria: name to settings; none for a single-exit method. Those without a meaning for the task are left out,
            and those that read a channel which the method's models do not record. What learns, learns from selection
            rows, each seed for itself.
        rule: how an operating point is chosen.
        selected_on: "selection", or the report split that also chose (the paper's protocol).
    """
    how = {"rule": rule.name, "selected_on": selected_on}
    rows = [
        _row(labels, None, {}, seeds, [NEVER] * len(seeds), split, metrics, rule) | how | {"in_window": True}
        for split in report_splits
    ]
    curves: list[dict[str, Any]] = []
    points: list[dict[str, tuple[Criterion, float]]] = [{} for _ in seeds]
    for name, settings in criteria.items():
        criterion = make(name, settings)
        if not criterion.applies_to(seeds[0].traces[SELECTION]):
            continue
        chosen = [fit_and_choose(criterion, member.traces[SELECTION], metrics, rule) for member in seeds]
        fitted, thresholds = [exit_rule for exit_rule, _ in chosen], [choice.threshold for _, choice in chosen]
        met = {"in_window": all(choice.in_window for _, choice in chosen)}
        rows += [_row(labels, fitted, settings, seeds, thresholds, s, metrics, rule) | how | met for s in report_splits]
        for point, exit_rule, threshold in zip(points, fitted, thresholds, strict=True):
            point[name] = exit_rule, threshold
        for split in (SELECTION, *report_splits):
            for member, exit_rule in zip(seeds, fitted, strict=True):
                curves += _curve(labels, exit_rule, member, split, metrics)
    exits = [_exits(labels, member, split, metrics) for split in (SELECTION, *report_splits) for member in seeds]
    diagnosis = [
        {**labels, "split": split, "seed": member.seed, "key": member.key} | diagnose(member.traces[split], metrics, at)
        for split in report_splits
        for member, at in zip(seeds, points, strict=True)
        if criteria
    ]
    return Evaluation(rows, exits, curves, diagnosis)


def _row(
    labels: Mapping[str, Any],
    criteria: list[Criterion] | None,
    settings: Mapping[str, float],
    seeds: list[Seeded],
    thresholds: list[float],
    split: str,
    metrics: tuple[str, ...],
    chosen_by: Rule,
) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for member, rule, threshold in zip(seeds, criteria or [make("fixed")] * len(seeds), thresholds, strict=True):
        trace = member.traces[split]
        point = sweep(trace, rule, np.array([threshold]))
        found = point.metrics(metrics) | {"layer_speedup": point.layer_speedup, "flop_speedup": point.flop_speedup}
        if criteria is None and trace.exits > 1:
            # A plain pass asks no early head: its FLOPs are as its layers (the last head is under a thousandth).
            found["flop_speedup"] = np.array([trace.all_layers / trace.layers[-1]])
        risk = chosen_by.risk(point)
        if risk is not None:
            found["risk"] = risk
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
        "risk": intervals.get("risk"),
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
