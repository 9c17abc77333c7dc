"""Metrics of a finished run, kept to compare a later run with."""

from typing import ClassVar, Literal

from pipeline.results.base import Result

Kind = Literal["score", "layer_speedup", "flop_speedup", "accuracy", "exact"]
"""Kind of a metric: what it measures, and so how far it may move (pipeline/commands/compare_metrics.py)."""


class StoredMetrics(Result):
    """`docs/demo-metrics.json`, or any file that `python -m pipeline compare-metrics FILE --write` names."""

    schema_version: ClassVar[int] = 1
    made_by: ClassVar[str] = "compare-metrics"

    metrics: dict[Kind, dict[str, float | None]]
    """By kind and name; None where a metric is not defined."""
