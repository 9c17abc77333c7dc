"""The table of attacks at twelve layers in docs/results-robustness.md, from the result and the records of the run."""

from pathlib import Path

from pipeline.params import Params
from pipeline.results import Attack
from tools.robustness import HEADER, PAGE, compared, share
from tools.tables import Table, markdown

PROFILE = "robustness12"

__all__ = ["PAGE", "PROFILE", "TABLES"]


def twelve(params: Params, folder: Path) -> str:
    """Accuracy under the plain and the adaptive attack, and on all texts that broke any of the models."""
    (task,) = params.attack.tasks
    (attacked,) = Attack.read(folder / f"attack/{task}.json", "").attacked
    found = {row.defence: row.pooled_accuracy for row in attacked.rows}
    rows = []
    for encoder, defence, *cells in compared(params, folder / f"attack/{task}.csv"):
        pooled = found[defence]
        assert pooled.value is not None
        assert pooled.low is not None
        assert pooled.high is not None
        rows.append([encoder, defence, *cells[:4], share(pooled.value, pooled.low, pooled.high), *cells[4:]])
    return markdown((*HEADER[:6], "on all texts found", *HEADER[6:]), rows)


TABLES: dict[str, Table] = {"twelve": twelve}
