"""The tables of docs/results.md, from what evaluate found on stored traces and from the stored wall times."""

from pathlib import Path

from pipeline.params import Params
from pipeline.results import Latency
from tools.results.scores import exits, scores
from tools.results.tables import Table, markdown

PROFILE = "real"
PAGE = Path(__file__).resolve().parents[2] / "docs/results.md"


def wall(params: Params, folder: Path) -> str:
    """Measured speed-up of the first seed's models beside their own layer ratio, on the timed rows."""
    rows, modes = [], list[str]()
    for task in params.latency.tasks:
        measured = Latency.read(folder / f"latency/{task}.json", "").measured
        assert measured is not None
        timed = [row for row in measured.rows if row.point.criterion is not None]
        modes = list(dict.fromkeys(row.mode for row in timed))
        for method, criterion in dict.fromkeys((row.method, row.point.criterion) for row in timed):
            own = {row.mode: row for row in timed if (row.method, row.point.criterion) == (method, criterion)}
            cells = [f"{own[mode].measured_speedup:.2f}x of {own[mode].own_layer_speedup:.2f}x" for mode in modes]
            rows.append([task, method, str(criterion), *cells])
    return markdown(["task", "method", "criterion", *modes], rows)


TABLES: dict[str, Table] = {"scores": scores, "exits": exits, "wall": wall}
