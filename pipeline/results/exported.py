"""The description of an exported model."""

from typing import ClassVar, Literal

from pipeline.results.base import (
    Amount,
    Count,
    Name,
    Natural,
    Part,
    Result,
    Seed,
    Text,
    refuse_descending,
    refuse_lengths,
)
from pipeline.results.evaluated import ExitCosts, Row
from pipeline.results.point import OperatingPoint


class Promise(Part):
    """Where the selection rows left at an operating point: what a served model is watched against."""

    exit_counts: tuple[Count, ...]
    """Rows that left at each exit."""
    difference: Amount
    """Mean difference of their answers from the last exit's: the share of rows with another class; for a regression
    the absolute difference of the values."""

    def check(self) -> None:
        if not sum(self.exit_counts):
            raise ValueError("exit_counts: there is no row")


class ExportedPrecision(Part):
    """A model's layers in one precision, with what was measured of them through the exported graphs."""

    layers: tuple[Name, ...]
    """File of each layer; layers that share their weights share it."""
    exits: tuple[Name, ...]
    """File of each exit; exits with one pooler share it."""
    points: tuple[OperatingPoint, ...]
    """Operating points, chosen on traces of these graphs, in the order of `evaluate.criteria`."""
    promises: tuple[Promise, ...]
    """For each point, on the selection rows, through these graphs."""
    rows: tuple[Row, ...]
    """Scores of this model alone at all layers and at each point, on the report splits."""
    costs: ExitCosts | None = None
    """What each exit of these graphs costs, by which points were chosen; None but for rule `latency`."""


class Exports(Result):
    """`outputs/exported/<task>/index.json`."""

    schema_version: ClassVar[int] = 1
    made_by: ClassVar[str] = "export"
    task: Name
    """The task's name."""
    models: tuple[Name, ...] | None
    """Folders beside it, one per backbone and method; None: `export.tasks` does not name the task."""


class Exported(Result):
    """`outputs/exported/<task>/<backbone>.<method>/model.json`, or in the folder that the command `export` is given."""

    named_by_task: ClassVar[bool] = False
    schema_version: ClassVar[int] = 3
    made_by: ClassVar[str] = "export"
    task: Name
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the rows."""
    kind: Literal["classification", "regression"]
    """Kind of the answers."""
    columns: tuple[Text, ...]
    """Columns of the inputs: two for pairs of texts."""
    label_names: tuple[str, ...]
    """Classes in their order; empty for a regression."""
    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    seed: Seed
    """Seed of the model's trial."""
    key: Name
    """Key of the trial."""
    weights_sha256: Text
    """Hash of the model's file."""
    data_sha256: dict[Name, Text]
    """Hash of each split's rows that scores rest on."""
    outputs: Natural
    """Classes, or 1 for a regression."""
    exits: tuple[Natural, ...]
    """Layers with an exit, from 1."""
    channels: tuple[Text, ...]
    """What an exit gives beside its logits, in the order of the graph's outputs."""
    precisions: dict[Text, ExportedPrecision]
    """By precision: float32, int8."""
    learned: bool = True
    """Whether the model, through all layers, knows more than one answer for every row."""
    parameters: Count
    """Number of parameters."""
    versions: dict[str, str]
    """Versions of the libraries that exported and measured it, and the project's commit."""
    files: dict[Name, Text]
    """SHA-256 of every other file in the folder but the model card."""

    def check(self) -> None:
        refuse_descending("exits", self.exits)
        for name, precision in self.precisions.items():
            refuse_lengths(self.exits[-1], "layers", **{f"precisions.{name}.layers": precision.layers})
            refuse_lengths(len(self.exits), "exits", **{f"precisions.{name}.exits": precision.exits})
            refuse_lengths(len(precision.points), "points", **{f"precisions.{name}.promises": precision.promises})
            for promise in precision.promises:
                refuse_lengths(len(self.exits), "exits", **{f"precisions.{name}.promises": promise.exit_counts})
            for file in (*precision.layers, *precision.exits):
                if file not in self.files:
                    raise ValueError(f"precisions.{name}: {file!r} is not in files")
