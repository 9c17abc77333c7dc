"""Evaluation of a group of models (a backbone and a method, a model per seed) under each criterion.

Points are chosen on selection rows and reported on report rows, as medians over seeds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.choosing import Chooser, fit_and_choose
from pipeline.evaluation.criteria import Criterion, make
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.intervals import median_interval
from pipeline.evaluation.metrics import score
from pipeline.evaluation.point import criterion_of, point_of, sweep_at
from pipeline.evaluation.preferred import preferred
from pipeline.evaluation.sweep import sweep
from pipeline.evaluation.trace import Trace
from pipeline.results import ALL_LAYERS, CurvePoint, Diagnosis, ExitScores, OperatingPoint, OverSeeds, Row, curves_of
from pipeline.results.traces import SELECTION


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        rows: one per group, criterion and report split; all layers first.
        exits: one per group, seed and split.
        diagnosis: one per group, seed and report split.
        curves: every setting of every criterion, seed and split.
    """

    rows: tuple[Row, ...]
    exits: tuple[ExitScores, ...]
    diagnosis: tuple[Diagnosis, ...]
    curves: tuple[CurvePoint, ...]


def merged(parts: Iterable[Evaluation]) -> Evaluation:
    """The evaluations of several groups as one, in order."""
    every = tuple(parts)
    return Evaluation(
        rows=tuple(row for part in every for row in part.rows),
        exits=tuple(entry for part in every for entry in part.exits),
        diagnosis=tuple(entry for part in every for entry in part.diagnosis),
        curves=tuple(point for part in every for point in part.curves),
    )


def evaluate_group(
    group: Group,
    criteria: Mapping[str, Mapping[str, float]],
    metrics: tuple[str, ...],
    chooser: Chooser,
    protocol: Literal["holdout", "paper"] = "holdout",
) -> Evaluation:
    """Evaluate one group's traces.

    Args:
        criteria: name to settings; ignored for models of one exit. A criterion that does not apply to the task, or
            whose channel the models do not record, is left out. A criterion that learns is fitted for each seed.
        metrics: the task's.
        chooser: picks the threshold.
        protocol: with "paper" the selection rows are the first report split's, and rows say so.
    """
    if not group.multi_exit:
        criteria = {}
    selected_on = SELECTION if protocol == "holdout" else group.report_splits[0]
    splits = (SELECTION, *group.report_splits)
    all_layers = (ALL_LAYERS,) * len(group.seeds)
    rows = [_row(group, all_layers, True, split, metrics, chooser, selected_on) for split in group.report_splits]
    curves: list[CurvePoint] = []
    chosen: list[tuple[OperatingPoint, ...]] = []
    for name, settings in criteria.items():
        criterion = make(name, settings)
        if not criterion.applies_to(group.seeds[0].traces[SELECTION]):
            continue
        choices = [fit_and_choose(criterion, member.traces[SELECTION], metrics, chooser) for member in group.seeds]
        points = tuple(point_of(fitted, settings, choice.threshold) for fitted, choice in choices)
        met = all(choice.in_window for _, choice in choices)
        rows += [_row(group, points, met, split, metrics, chooser, selected_on) for split in group.report_splits]
        chosen.append(points)
        for split in splits:
            for member, (fitted, _) in zip(group.seeds, choices, strict=True):
                curves += _curve(group, member, fitted, split, metrics)
    lines = [*curves_of(curves)]
    best = [preferred(rows, lines, split) for split in group.report_splits]
    return Evaluation(
        rows=tuple(row.model_copy(update={"preferred": any(row is one for one in best)}) for row in rows),
        exits=tuple(_exits(group, member, split, metrics) for split in splits for member in group.seeds),
        diagnosis=tuple(_diagnoses(group, chosen, metrics)),
        curves=tuple(curves),
    )


def _row(
    group: Group,
    points: tuple[OperatingPoint, ...],
    in_window: bool,
    split: str,
    metrics: tuple[str, ...],
    chooser: Chooser,
    selected_on: str,
) -> Row:
    """The row of one criterion on one split, with an operating point per seed."""
    by_seed = [
        _values(member.traces[split], p, metrics, chooser) for member, p in zip(group.seeds, points, strict=True)
    ]
    over_seeds: dict[str, OverSeeds] = {
        name: median_interval([values[name] for values in by_seed]) for name in by_seed[0]
    }
    return Row(
        backbone=group.backbone,
        method=group.method,
        split=split,
        seeds=tuple(member.seed for member in group.seeds),
        keys=tuple(member.key for member in group.seeds),
        points=points,
        score=over_seeds["score"],
        metrics={name: over_seeds[name] for name in metrics},
        layer_speedup=over_seeds["layer_speedup"],
        flop_speedup=over_seeds["flop_speedup"],
        rule=chooser.name,
        in_window=in_window,
        selected_on=selected_on,
        risk=over_seeds.get("risk"),
        cost_ms=over_seeds.get("cost_ms"),
    )


def _values(trace: Trace, point: OperatingPoint, metrics: tuple[str, ...], chooser: Chooser) -> dict[str, float]:
    """Score, metrics, speed-ups and, where the chooser bounds it, risk of one model at its operating point."""
    swept = sweep_at(trace, point)
    if chooser.bounds_risk:
        swept = chooser.prepared(swept, trace, criterion_of(point) or make("fixed"))
    values = swept.metrics(metrics) | {"layer_speedup": swept.layer_speedup, "flop_speedup": swept.flop_speedup}
    if point.criterion is None:  # all layers means no early head, as the live engine runs it
        values["flop_speedup"] = np.array([trace.full_flops.sum() / trace.last_cost.sum()])
    risk = chooser.risk(swept)
    if risk is not None:
        values["risk"] = risk
    if point.criterion is None:
        full = chooser.full_cost()
        cost = None if full is None else np.array([full])
    else:
        cost = chooser.expected_ms(swept)
    if cost is not None:
        values["cost_ms"] = cost
    return {name: float(value[0]) for name, value in values.items()}


def _curve(
    group: Group, member: SeedTraces, criterion: Criterion, split: str, metrics: tuple[str, ...]
) -> Iterator[CurvePoint]:
    """The curve of a criterion on one model and split: a point per threshold."""
    swept = sweep(member.traces[split], criterion)
    values = swept.metrics(metrics)["score"]
    for threshold, value, layers, flops in zip(
        swept.thresholds, values, swept.layer_speedup, swept.flop_speedup, strict=True
    ):
        yield CurvePoint(
            backbone=group.backbone,
            method=group.method,
            criterion=criterion.name,
            seed=member.seed,
            split=split,
            threshold=round(float(threshold), 8),
            score=round(float(value), 6),
            layer_speedup=round(float(layers), 6),
            flop_speedup=round(float(flops), 6),
        )


def _exits(group: Group, member: SeedTraces, split: str, metrics: tuple[str, ...]) -> ExitScores:
    """The score of each exit taken alone."""
    trace = member.traces[split]
    scores = score(metrics, trace.answers().T, trace.labels)
    return ExitScores(
        backbone=group.backbone,
        method=group.method,
        split=split,
        seed=member.seed,
        key=member.key,
        layers=tuple(int(layer) for layer in trace.layers),
        scores=tuple(None if np.isnan(s) else round(float(s), 6) for s in scores),
    )


def _diagnoses(group: Group, chosen: list[tuple[OperatingPoint, ...]], metrics: tuple[str, ...]) -> Iterator[Diagnosis]:
    """The findings on each model and report split, with each criterion at that model's operating point."""
    for split in group.report_splits:
        for at, member in enumerate(group.seeds):
            points = [points[at] for points in chosen]
            findings = diagnose(member.traces[split], metrics, points)
            yield Diagnosis(
                **dict(findings),
                backbone=group.backbone,
                method=group.method,
                split=split,
                seed=member.seed,
                key=member.key,
            )
