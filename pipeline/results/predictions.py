"""Results of evaluate for splits without labels: the index of the files of predictions."""

from typing import ClassVar

from pipeline.results.base import Part, Result
from pipeline.results.point import OperatingPoint


class PredictionFile(Part):
    """Predictions of one model at one operating point for one split."""

    model: str
    """Name of the model: backbone.method.criterion."""
    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    seed: int
    """Seed of the model: the one with the best selection score at its operating point."""
    key: str
    """Key of its trial."""
    point: OperatingPoint
    """Its operating point."""
    selection: float | None
    """Its selection score."""
    split: str
    """Name of the predicted split."""
    rows: int
    """Number of predicted rows."""
    layer_speedup: float
    """Layers of the plain model / mean layers run."""
    file: str
    """Path of the table, relative to the index's folder."""
    sha256: str
    """Hash of the table."""


class Predictions(Result):
    """`outputs/predictions/<task>/index.json`."""

    made_by: ClassVar[str] = "evaluate"
    task: str
    """The task's name."""
    files: tuple[PredictionFile, ...]
    """Files of predictions; empty where the task has no split without labels."""
