"""The table of training regimes in docs/results-depth.md, from the records of the trials that ran."""

import json
from pathlib import Path
from statistics import median

from pipeline.params import Params
from tools.results.tables import Table, markdown

PROFILE = "regimes"
PAGE = Path(__file__).resolve().parents[2] / "docs/results-depth.md"


def regime_exits(params: Params, folder: Path) -> str:
    """Scores of the exits alone on selection rows, median over the seeds that ran."""
    trials = json.loads((folder / "exits.json").read_text(encoding="utf-8"))
    rows = []
    for task in params.tasks:
        for method in params.entries():
            found = [one["scores"] for one in trials if (one["task"], one["method"]) == (task, method)]
            if not found:
                continue
            medians = [median(value or 0.0 for value in of_exit) for of_exit in zip(*found, strict=True)]
            cells = [""] * (12 - len(medians)) + [f"{100 * value:.1f}" for value in medians]
            rows.append([task, method, str(len(found)), *cells, f"{100 * sum(medians) / len(medians):.1f}"])
    return markdown(["task", "method", "seeds", *map(str, range(1, 13)), "mean"], rows)


TABLES: dict[str, Table] = {"regime_exits": regime_exits}
