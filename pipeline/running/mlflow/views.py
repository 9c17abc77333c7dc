"""Saved views of the experiment in MLflow's own pages: columns that a person can read, and charts that line up.

MLflow keeps a view that was shared as a tag of its experiment, whose name is in the link.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

ROWS, TRIALS = "rows", "trials"
"""Operating points of evaluate; trained trials."""
_TAG = "mlflow.sharedViewState."
_SECTION = "early-exit"
_RUN = ("User", "Source", "Version")


def link(experiment: str, view: str, charts: bool = True) -> str:
    """The link to a view, from the address of MLflow's pages on."""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={view}" + ("&compareRunsMode=CHART" if charts else "")


def view_tags() -> dict[str, str]:
    """The tags that an experiment with the saved views has."""
    rows = _view(
        'tags.kind = "row" and tags.stage = "evaluate"',
        "score",
        metrics=("score", "layer_speedup", "flop_speedup"),
        other=("score_low", "score_high"),
        params=("task", "backbone", "method", "criterion", "threshold"),
        charts=(
            _scatter("layer_speedup", "score"),
            _parallel(("method", "criterion", "threshold"), ("layer_speedup", "score")),
            _line("exit_score"),
        ),
    )
    trials = _view(
        'tags.trial != ""',
        "best_selection",
        metrics=("best_selection", "best_epoch", "train_seconds_total"),
        params=("task", "backbone", "method", "learning_rate", "batch_size", "seed"),
        charts=(
            _line("selection"),
            _parallel(("method", "learning_rate", "batch_size", "seed"), ("best_selection",)),
            _line("loss"),
        ),
    )
    return {f"{_TAG}{name}": json.dumps(view, sort_keys=True) for name, view in ((ROWS, rows), (TRIALS, trials))}


def _view(
    query: str,
    order: str,
    *,
    metrics: Sequence[str],
    params: Sequence[str],
    charts: Sequence[Mapping[str, Any]],
    other: Sequence[str] = (),
) -> dict[str, Any]:
    """A view as MLflow's pages store it.

    Args:
        metrics, params: columns.
        other: metrics that have neither column nor chart.
    """
    columns = {"metrics": metrics, "params": params, "attributes": _RUN}
    shown = [{**chart, **_chart(f"{_SECTION}-{i}", False)} for i, chart in enumerate(charts)]
    hidden = [
        {"type": "BAR", "metricKey": metric, **_chart(f"{_SECTION}-no-{metric}", True), "isGenerated": True}
        for metric in (*metrics, *other)
    ]  # else MLflow adds a chart for each
    return {
        "searchFilter": query,
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": False,
        "selectedColumns": [f"{kind}.`{name}`" for kind, names in columns.items() for name in names],
        "compareRunCharts": [*shown, *hidden],
        "compareRunSections": [{"uuid": _SECTION, "name": "Model metrics", "display": True, "isReordered": False}],
    }


def _chart(uuid: str, deleted: bool) -> dict[str, Any]:
    return {
        "uuid": uuid, "runsCountToCompare": 100, "metricSectionId": _SECTION, "deleted": deleted, "isGenerated": False,
    }  # fmt: skip


def _scatter(x: str, y: str) -> dict[str, Any]:
    return {"type": "SCATTER", "xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    return {"type": "PARALLEL", "selectedParams": list(params), "selectedMetrics": list(metrics)}


def _line(metric: str) -> dict[str, Any]:
    return {"type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], "displayName": metric}
