"""The tables of every method in docs/results-baselines.md, from what evaluate found on stored traces."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.params import Params
from pipeline.results import Evaluated, Row
from tools.results.scores import cell, exits, found
from tools.results.tables import Table, markdown

PROFILE = "baselines"
PAGE = Path(__file__).resolve().parents[2] / "docs/results-baselines.md"
CRITERIA = ("patience", "confidence", "fixed")


def methods(params: Params, folder: Path) -> str:
    """Score and speed-up of every method, with all its layers and under three criteria."""
    every = found(params, folder)
    rows = []
    for method in params.entries():
        for criterion in (None, *CRITERIA):
            own = dict(_rows(every, method, criterion))
            if own:
                cells = [cell(own.get(task), speed=criterion is not None) for task in every]
                rows.append([f"{method}, {criterion or 'all layers'}", _cost(list(own.values()), criterion), *cells])
    return markdown(["method", "layers, FLOPs", *every], rows)


TABLES: dict[str, Table] = {"methods": methods, "exits": exits}


def _rows(every: Mapping[str, Evaluated], method: str, criterion: str | None) -> Iterator[tuple[str, Row]]:
    for task, evaluated in every.items():
        for row in evaluated.rows:
            if (row.method, row.criterion) == (method, criterion):
                yield task, row


def _cost(rows: list[Row], criterion: str | None) -> str:
    if criterion is not None:
        return ""
    flops = sorted(row.flop_speedup.median or 1.0 for row in rows)
    low, high = (f"{value:.2f}x" for value in (flops[0], flops[-1]))
    return f"{rows[0].layer_speedup.median:.2f}x, " + (low if low == high else f"{low} to {high}")
