"""Metrics of a finished run against stored ones; timings are left out."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.layout import Workspace
from pipeline.report.between import Line, by_speed, line_of, scores_at
from pipeline.results import Attack, Curve, Evaluated, Simulation, StoredMetrics, curves_of, read_curves
from pipeline.results.metrics import Kind

TOLERANCES: dict[Kind, float] = {"score": 0.05, "exits": 0.03, "gain": 0.03, "accuracy": 0.25, "exact": 2e-6}
"""Kind of metric to its tolerance, in the unit of the metric (docs/design/ci.md has the measurements)."""
SPEEDS = np.arange(1.1, 2.01, 0.1)
"""Layer speed-ups at which a criterion's curve is compared with leaving at a fixed layer."""


def collect(run: Workspace) -> StoredMetrics:
    """The metrics of a finished run.

    Raises:
        ArtifactError: a result is missing or unreadable.
    """
    metrics: dict[Kind, dict[str, float | None]] = {kind: {} for kind in get_args(Kind)}
    for kind, name, value in _all(run):
        metrics[kind][name] = value
    return StoredMetrics(metrics=metrics)


class Moved(NamedTuple):
    """A metric that is missing or differs too much; a value that is not defined is None."""

    name: str
    before: float | None
    after: float | None
    tolerance: float
    missing: bool = False

    def __str__(self) -> str:
        if self.missing:
            return f"{self.name}: stored {self.before}, not in this run"
        moved = f"{self.name}: {self.before} -> {self.after}"
        if self.before is None or self.after is None:
            return moved
        return f"{moved} (moved {self.after - self.before:+.6g}, tolerance {self.tolerance})"


def differences(stored: StoredMetrics, fresh: StoredMetrics, *, exact: bool = False) -> list[Moved]:
    """The stored metrics that are missing or differ too much.

    Args:
        exact: whether any difference is too much; else one above the kind's tolerance.
    """
    moved = []
    for kind, metrics in stored.metrics.items():
        tolerance = TOLERANCES[kind]
        current = fresh.metrics.get(kind, {})
        for name, before in metrics.items():
            if name not in current:
                moved.append(Moved(name, before, None, tolerance, missing=True))
                continue
            after = current[name]
            if before is None or after is None:
                differs = before is not after
            else:
                differs = not abs(after - before) <= (0.0 if exact else tolerance)
            if differs:
                moved.append(Moved(name, before, after, tolerance))
    return moved


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
        results = Evaluated.read(path, remedy)
        for row in results.rows:
            if row.criterion is None:
                yield "score", f"{path.stem}/{row.backbone}/{row.method}/{row.split}/score", row.score.median
        curves = tuple(curves_of(read_curves(run.curves(path.stem), results, remedy)))
        yield from of_models(path.stem, results, curves)
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


def of_models(task: str, results: Evaluated, curves: Sequence[Curve]) -> Iterator[tuple[Kind, str, float | None]]:
    """What does not jump with a threshold: the mean score of all exits, and what each criterion gains over them.

    The gain is the score of a criterion's curve over that of leaving at a fixed layer, at equal speed, on the same rows
    and models; the mean over SPEEDS and seeds. It is above 0 where a criterion tells easy rows from hard ones.
    """
    whole = {(row.backbone, row.method): row.layer_speedup.median or 1.0 for row in results.rows if not row.criterion}
    exits: dict[tuple[str, str, str], dict[int, Line]] = defaultdict(dict)
    for entry in results.exits:
        if len(entry.layers) > 1 and entry.split != "selection":
            scores = [np.nan if score is None else score for score in entry.scores]
            full = entry.layers[-1] * whole[entry.backbone, entry.method]
            speeds = [full / layers for layers in entry.layers]
            exits[entry.backbone, entry.method, entry.split][entry.seed] = by_speed(speeds, scores)
    for (backbone, method, split), lines in exits.items():
        name = f"{task}/{backbone}/{method}/{split}"
        yield "exits", f"{name}/exits", _mean([scores.mean() for _, scores in lines.values()])
        gains: dict[str, list[float]] = defaultdict(list)
        for curve in curves:
            if (curve.backbone, curve.method, curve.split) == (backbone, method, split):
                over = scores_at(line_of(curve), SPEEDS) - scores_at(lines[curve.seed], SPEEDS)
                gains[curve.criterion].append(float(np.nanmean(over)) if np.isfinite(over).any() else np.nan)
        for criterion, values in gains.items():
            yield "gain", f"{name}/{criterion}/gain", _mean(values)


def _mean(values: Sequence[float]) -> float | None:
    """The mean over seeds; None where it is undefined for one."""
    mean = float(np.mean(values))
    return None if np.isnan(mean) else mean


def _files(run: Workspace, pattern: Path) -> list[Path]:
    return sorted(run.root.glob(pattern.relative_to(run.root).as_posix()))
