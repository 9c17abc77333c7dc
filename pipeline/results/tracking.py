"""What a tracked run still has to get: kept on disk while the tracking server is away."""

from pathlib import PurePath
from typing import ClassVar, Literal

from pipeline.errors import shown
from pipeline.results.base import Name, Part, Result

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class LoggedMetric(Part):
    """One value of a metric."""

    name: str
    """Its name."""
    value: float
    """Its value."""
    time: int
    """When it was logged, in milliseconds since 1970."""
    step: int
    """The epoch; 0 for a number of the whole run."""


class LoggedData(Part):
    """A data set that the run read."""

    name: str
    """Its name."""
    digest: str
    """Hash of its content."""
    source: str
    """Its folder."""
    context: str
    """What it was read for: training, or the split's name."""


class UnsentRun(Result):
    """`runs/tracking/<id>.json`: what MLflow lacks of one run. The file goes when all is sent and the run has ended."""

    made_by: ClassVar[str] = "every stage"
    id: Name
    """Identifies the run; the key of a trial's run."""
    name: str
    """Its title."""
    key: Name | None
    """The trial's key, by which its run is found again; None for a stage's own run."""
    parent: str | None
    """Id of the run that it belongs to."""
    run_id: str | None
    """MLflow's id; None before the run was made there."""
    started: int
    """When it began, in milliseconds since 1970."""
    ended: int | None
    """When it ended; None while it runs."""
    status: RunStatus
    """How it ended, or RUNNING."""
    tags: dict[str, str]
    """All its tags."""
    params: dict[str, str]
    """Parameters that MLflow lacks."""
    metrics: tuple[LoggedMetric, ...]
    """Metrics that MLflow lacks, in the order of logging."""
    artifacts: tuple[str, ...]
    """Files that MLflow lacks, by their paths."""
    data: tuple[LoggedData, ...]
    """Data sets that MLflow lacks."""

    def check(self) -> None:
        for path in map(PurePath, self.artifacts):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"artifacts: {shown(str(path))} lies outside the project's folder")
