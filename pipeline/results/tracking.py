"""What a tracked run still has to get: kept on disk while the tracking server is away."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

from pipeline.errors import shown
from pipeline.results.base import Name, Part, Result, Text

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


def _as_learned(payload: Any) -> None:
    payload["learned"] = True


class UnsentModel(Result):
    """`runs/models/<content>/<task>.json`: a selected model, beside its files, until MLflow has it."""

    schema_version: ClassVar[int] = 4
    """Still read: 3 did not say whether it has `learned`."""
    older: ClassVar[Mapping[int, Callable[[Any], None]]] = {3: _as_learned}
    made_by: ClassVar[str] = "evaluate"
    task: Name
    """The task, which names it in MLflow's registry."""
    content: Name
    """Hash of all that its answers depend on: a version for each."""
    run: str
    """Id of the run of its operating point."""
    made: int
    """When it was made, in milliseconds since 1970; the last one is the selected one."""
    place: str
    """Folder of the project where it was made: "." or an experiment's, whose models are not selected."""
    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    criterion: Text
    """Name of the criterion at which it answers, unless a request names another; full: all layers."""
    threshold: float | None
    """Its threshold; None: no row leaves early."""
    key: Name
    """Key of the trial that trained it."""
    columns: tuple[Text, ...]
    """Columns of its inputs; empty for images."""
    precisions: tuple[Text, ...]
    """Of the graphs that it answers through, the first by default; empty: PyTorch."""
    example: tuple[str, ...]
    """An input, a text per column; empty for images."""
    metrics: dict[str, float]
    """Scores and speed-ups of its operating point on the first report split."""
    learned: bool
    """Whether, through all layers, it knows more than one answer for every row of that split; else it has no alias."""
    tags: dict[str, str]
    """What it comes from."""

    @classmethod
    def of(cls, folder: Path) -> "UnsentModel":
        """What describes the model whose files lie in a folder.

        Raises:
            ArtifactError: as `read`, or there is nothing.
        """
        path = next(iter(folder.glob("*.json")), folder / "<task>.json")
        return cls.read(path, "run `dvc repro -f evaluate export`, which register it again")

    @property
    def registered(self) -> str:
        """Its name in MLflow's registry, which takes no slash."""
        return registered_name(self.task)


def registered_name(task: str) -> str:
    """The name of a task's models in MLflow's registry.

    >>> registered_name("sst2")
    'early-exit.sst2'
    """
    return f"early-exit.{task}"
