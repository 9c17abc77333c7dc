"""The tables of SST-2 in full in docs/results-baselines.md, from what evaluate found on stored traces."""

from tools.results.baselines import PAGE
from tools.results.scores import exits, scores
from tools.results.tables import Table

__all__ = ["PAGE", "PROFILE", "TABLES"]

PROFILE = "sst2"
TABLES: dict[str, Table] = {"sst2_scores": scores, "sst2_exits": exits}
