"""Results of evaluate for splits without labels: the index of the files of predictions."""

from pathlib import PurePosixPath
from typing import ClassVar

from pipeline.results.base import Count, Name, Part, Ratio, Result, Score, Seed, Text, refuse_repeats
from pipeline.results.point import OperatingPoint


class PredictionFile(Part):
    """Predictions of one model at one operating point for one split."""

    model: Text
    """Name of the model: backbone.method.criterion."""
    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    seed: Seed
    """Seed of the model: the one with the best selection score at its operating point."""
    key: Name
    """Key of its trial."""
    point: OperatingPoint
    """Its operating point."""
    selection: Score | None
    """Its selection score."""
    split: Name
    """Name of the predicted split."""
    rows: Count
    """Number of predicted rows."""
    layer_speedup: Ratio
    """Layers of the plain model / mean layers run."""
    file: Text
    """Path of the table, relative to the index's folder."""
    sha256: Text
    """Hash of the table."""

    def check(self) -> None:
        if self.model != f"{self.backbone}.{self.method}.{self.point.name}":
            raise ValueError(f"model: {self.model!r} is not backbone, method and criterion")
        path = PurePosixPath(self.file)
        if path.parts != (self.model, path.name):
            raise ValueError(f"file: {self.file!r} lies in another folder than {self.model}")


class Predictions(Result):
    """`outputs/predictions/<task>/index.json`."""

    made_by: ClassVar[str] = "evaluate"
    task: Name
    """The task's name."""
    files: tuple[PredictionFile, ...]
    """Files of predictions; empty where the task has no split without labels."""

    def check(self) -> None:
        refuse_repeats("files", ((entry.model, entry.split) for entry in self.files))
        refuse_repeats("files", (entry.file for entry in self.files))
