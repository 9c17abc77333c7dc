"""The table of attacks at twelve layers in docs/results-robustness.md, from the result and the records of the run."""

from functools import partial

from tools.results.robustness import PAGE, attacked
from tools.results.tables import Table

__all__ = ["PAGE", "PROFILE", "TABLES"]

PROFILE = "robustness12"
TABLES: dict[str, Table] = {"twelve": partial(attacked, task="rotten_tomatoes")}
