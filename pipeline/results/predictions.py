"""What evaluate leaves of splits without labels: files of predictions, and which there are."""

from typing import ClassVar

from pipeline.results.base import Part, Result
from pipeline.results.point import OperatingPoint


class PredictionFile(Part):
    """Predictions of one model at one operating point for one split."""

    model: str
    """backbone.method.criterion."""
    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    seed: int
    """The seed that answers: the one with the best selection score at its operating point."""
    key: str
    """Its trial."""
    point: OperatingPoint
    """How it leaves."""
    selection: float | None
    """Its selection score."""
    split: str
    """The predicted split."""
    rows: int
    """Rows predicted."""
    layer_speedup: float
    """Layers of the plain model / mean layers run."""
    file: str
    """Path of the table, below the index's folder."""
    sha256: str
    """Hash of the table."""


class Predictions(Result):
    """`outputs/predictions/<task>/index.json`."""

    made_by: ClassVar[str] = "evaluate"
    task: str
    """The task's name."""
    files: tuple[PredictionFile, ...]
    """None where the task has no split without labels."""
