"""Have the demo's results moved? Metrics of a finished run against stored ones; timings are never among them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.storage import read_json, write_json

SCHEMA = 1
TOLERANCES = {
    "score": 0.05,
    "layer_speedup": 0.35,
    "flop_speedup": 0.35,
    "accuracy": 0.15,
    "exact": 2e-6,
}
"""How far a metric of each kind may move, in its own unit (docs/design/jobs.md gives the measurements)."""

Metrics = dict[str, dict[str, float | None]]
"""Kind of metric (a key of TOLERANCES) to name to value; None where it is not defined."""


def collect(outputs: Path) -> Metrics:
    """The metrics of a finished run.

    Args:
        outputs: its outputs folder.

    Raises:
        ArtifactError: a result is missing or unreadable.
    """
    found: Metrics = {kind: {} for kind in TOLERANCES}
    for kind, name, value in _all(outputs):
        found[kind][name] = value
    return found


def moved(stored: Metrics, fresh: Metrics) -> list[str]:
    """A line for each stored metric that is gone or moved by more than its kind's tolerance; empty when all is well."""
    lines = []
    for kind, metrics in stored.items():
        for name, before in metrics.items():
            if name not in fresh[kind]:
                lines.append(f"{name}: stored {before}, not in this run")
                continue
            after = fresh[kind][name]
            if before is None or after is None:
                if before is not after:
                    lines.append(f"{name}: {before} -> {after}")
            elif not abs(after - before) <= TOLERANCES[kind]:
                lines.append(f"{name}: {before} -> {after} (moved {after - before:+.6g}, tolerance {TOLERANCES[kind]})")
    return lines


def read_stored(path: Path) -> Metrics:
    """Read what `write_stored` wrote.

    Raises:
        ArtifactError: missing, cut short, or with a kind of metric that has no tolerance.
    """
    remedy = "write it from a finished demo with `python -m pipeline compare-metrics --write`"
    metrics: Metrics = read_json(path, SCHEMA, remedy).get("metrics", {})
    if not metrics or not set(metrics) <= set(TOLERANCES):
        raise ArtifactError(f"{path}: kinds of metrics {sorted(metrics)} are not {sorted(TOLERANCES)}; {remedy}")
    return metrics


def write_stored(path: Path, metrics: Metrics) -> Path:
    """Keep a run's metrics for later comparison."""
    return write_json(path, {"schema": SCHEMA, "metrics": metrics})


def _all(outputs: Path) -> Iterator[tuple[str, str, float | None]]:
    """(kind, name, value) of every result that a change of the code should not move."""
    evaluated = sorted((outputs / "evaluate").glob("*.json"))
    if not evaluated:
        raise ArtifactError(f"{outputs / 'evaluate'}: holds no results; run `dvc repro` first")
    for path in [*evaluated, outputs / "cifar" / "cifar.json"]:
        for row in _read(path)["rows"]:
            names = (row.get("dataset", path.stem), row["backbone"], row["method"], _rule(row), row["split"])
            for kind in ("score", "layer_speedup", "flop_speedup"):
                yield kind, "/".join((*names, kind)), row[kind]["median"]
    for path in sorted((outputs / "attack").glob("*.json")):
        for row in _read(path)["rows"]:
            for metric in ("original_accuracy", "after_attack_accuracy", "pooled_accuracy"):
                yield "accuracy", f"{path.stem}/attack/{row['defence']}/{metric}", row[metric]["value"]
    simulated = _read(outputs / "simulate" / "simulate.json")
    for row in simulated["example"]:
        for metric in ("exact_accuracy", "mean_layers"):
            yield "exact", f"simulate/example/t={row['t']}/{metric}", row[metric]
    for row in simulated["theorem"]:
        for metric in ("claims", "false_claims"):
            yield "exact", f"simulate/theorem/{row['name']}/{metric}", row[metric]


def _rule(row: Mapping[str, Any]) -> str:
    if row["criterion"] is None:
        return "all layers"
    return f"{row['criterion']} {json.dumps(row['settings'], sort_keys=True)}" if row["settings"] else row["criterion"]


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, 1, "run `dvc repro` first")
