"""Metrics of a finished run against stored ones; timings are left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pipeline.errors import ArtifactError
from pipeline.layout import Workspace
from pipeline.results import Attack, Evaluated, Row, Simulation, StoredMetrics
from pipeline.results.metrics import Kind

TOLERANCES: dict[Kind, float] = {
    "score": 0.05,
    "layer_speedup": 0.35,
    "flop_speedup": 0.35,
    "accuracy": 0.15,
    "exact": 2e-6,
}
"""Kind of metric to its tolerance, in the unit of the metric (docs/design/jobs.md has the measurements)."""


def collect(run: Workspace) -> StoredMetrics:
    """The metrics of a finished run.

    Raises:
        ArtifactError: a result is missing or unreadable.
    """
    metrics: dict[Kind, dict[str, float | None]] = {kind: {} for kind in get_args(Kind)}
    for kind, name, value in _all(run):
        metrics[kind][name] = value
    return StoredMetrics(metrics=metrics)


def differences(stored: StoredMetrics, fresh: StoredMetrics, *, exact: bool = False) -> list[str]:
    """A line for each stored metric that is missing or differs too much.

    Args:
        exact: whether any difference is too much; else one above the kind's tolerance.
    """
    lines = []
    for kind, metrics in stored.metrics.items():
        tolerance = TOLERANCES[kind]
        current = fresh.metrics.get(kind, {})
        for name, before in metrics.items():
            if name not in current:
                lines.append(f"{name}: stored {before}, not in this run")
                continue
            after = current[name]
            if before is None or after is None:
                if before is not after:
                    lines.append(f"{name}: {before} -> {after}")
            elif not abs(after - before) <= (0.0 if exact else tolerance):
                lines.append(f"{name}: {before} -> {after} (moved {after - before:+.6g}, tolerance {tolerance})")
    return lines


def read_stored(path: Path) -> StoredMetrics:
    """Read a file that `compare-metrics --write` wrote.

    Raises:
        ArtifactError: missing, cut short, without metrics, or with an unknown kind of metric.
    """
    remedy = "write it from a finished demo with `python -m pipeline compare-metrics --write`"
    stored = StoredMetrics.read(path, remedy)
    if not any(stored.metrics.values()):
        raise ArtifactError(f"{path}: holds no metrics; {remedy}")
    return stored


def _all(run: Workspace) -> Iterator[tuple[Kind, str, float | None]]:
    """(kind, name, value) of every result that a change of the code should keep."""
    remedy = "run `dvc repro` first"
    evaluated = _files(run, run.evaluated("*"))
    if not evaluated:
        raise ArtifactError(f"{run.evaluated('*')}: no such file; {remedy}")
    for path in evaluated:
        for row in Evaluated.read(path, remedy).rows:
            names = (path.stem, row.backbone, row.method, _criterion(row), row.split)
            yield "score", "/".join((*names, "score")), row.score.median
            yield "layer_speedup", "/".join((*names, "layer_speedup")), row.layer_speedup.median
            yield "flop_speedup", "/".join((*names, "flop_speedup")), row.flop_speedup.median
    for path in _files(run, run.attack("*")):
        attacks = Attack.read(path, remedy).attacked
        for split, defence in ((attacked.split, row) for attacked in attacks for row in attacked.rows):
            name = "/".join((path.stem, "attack", *([split] * (len(attacks) > 1)), defence.defence))
            yield "accuracy", f"{name}/original_accuracy", defence.original_accuracy.value
            yield "accuracy", f"{name}/after_attack_accuracy", defence.after_attack_accuracy.value
            yield "accuracy", f"{name}/pooled_accuracy", defence.pooled_accuracy.value
    simulated = Simulation.read(run.simulation, remedy)
    for point in simulated.example:
        yield "exact", f"simulate/example/t={point.t}/exact_accuracy", point.exact_accuracy
        yield "exact", f"simulate/example/t={point.t}/mean_layers", point.mean_layers
    for bound in simulated.theorem:
        yield "exact", f"simulate/theorem/{bound.name}/claims", bound.claims
        yield "exact", f"simulate/theorem/{bound.name}/false_claims", bound.false_claims


def _files(run: Workspace, pattern: Path) -> list[Path]:
    return sorted(run.root.glob(pattern.relative_to(run.root).as_posix()))


def _criterion(row: Row) -> str:
    """The criterion with its settings, as a part of a metric's name."""
    if row.criterion is None:
        return "all layers"
    settings = row.points[0].settings
    return f"{row.criterion} {json.dumps(settings, sort_keys=True)}" if settings else row.criterion
