"""Metrics of a finished run, stored for comparison with later runs."""

from typing import ClassVar, Literal

from pipeline.results.base import Result

Kind = Literal["score", "exits", "gain", "accuracy", "exact"]
"""Kind of a metric, which sets its tolerance (pipeline/commands/compare_metrics.py)."""


class StoredMetrics(Result):
    """`docs/demo-metrics.json`, or any file that `python -m pipeline compare-metrics FILE --write` names."""

    schema_version: ClassVar[int] = 3
    made_by: ClassVar[str] = "compare-metrics"

    metrics: dict[Kind, dict[str, float | None]]
    """Metrics by kind and name; None where one is undefined."""
