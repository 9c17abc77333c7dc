"""Results of prepare: the manifest of a task's data."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.errors import shown
from pipeline.results.base import (
    Amount,
    Count,
    Fraction,
    Name,
    Natural,
    Part,
    Result,
    Text,
    Value,
    refuse_other_names,
    refuse_repeats,
)

PIXELS = "pixels"
"""Name of the one entry of images in `Manifest.inputs`."""


class Split(Part):
    """One split."""

    rows: Count
    """Number of rows."""
    sha256: str
    """Hash of the split's content."""
    label_counts: dict[str, Count] | None = None
    """Number of rows by class name; None for a regression and without labels."""
    label_mean: Value | None = None
    """Mean label of a regression."""
    label_std: Amount | None = None
    """Standard deviation of a regression's labels."""
    words_mean: Amount | None = None
    """Mean number of words of a row; None for images."""
    words_max: Count | None = None
    """Largest number of words of a row; None for images."""


class TokenCounts(Part):
    """Lengths of a split's rows in tokens."""

    mean: Amount
    """Mean length."""
    max: Count
    """Largest length."""


class Inputs(Part):
    """The inputs of one backbone: tokens of its tokenizer, or pixels."""

    hash: Text
    """Hash of train and selection rows with their labels, which are the data of a trial."""
    splits: dict[Name, Text]
    """Hash of each split's inputs and labels."""
    vocabulary: Natural | None = None
    """Size of the tokenizer's vocabulary; None for images."""
    tokens: dict[Text, TokenCounts] = {}
    """Lengths by split; empty for images."""
    mean: tuple[Fraction, ...] | None = None
    """Mean of each colour over the training pixels, 0..1; None for texts."""
    std: tuple[Fraction, ...] | None = None
    """Standard deviation of each colour; None for texts."""


class Manifest(Result):
    """`data/<task>/manifest.json`: the prepared data of a task."""

    schema_version: ClassVar[int] = 3
    made_by: ClassVar[str] = "prepare"
    task: Name
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the rows; it selects backbones and methods."""
    kind: Literal["classification", "regression"]
    """Kind of the answers."""
    protocol: Literal["holdout", "paper"]
    """Source of the selection rows."""
    columns: tuple[Text, ...]
    """Columns of the inputs."""
    label_names: tuple[str, ...]
    """Classes in their order; empty for a regression."""
    metrics: tuple[Text, ...]
    """Metrics, whose mean is the score."""
    source: dict[str, JsonValue]
    """Source of the rows, from params.yaml or the task's definition."""
    files: dict[str, str] = {}
    """SHA-256 of each local file that they were made from, by its role: source/..., or a backbone's name/...."""
    report_splits: tuple[Name, ...]
    """Labelled splits that the report shows."""
    unlabelled_splits: tuple[Name, ...]
    """Splits without labels, which are predicted."""
    splits: dict[Name, Split]
    """Every split by its name: train, selection, report splits and splits without labels."""
    inputs: dict[Name, Inputs]
    """By backbone for texts; for images one entry, "pixels"."""

    def check(self) -> None:
        self._check_splits()
        for name in ("columns", "label_names", "metrics"):
            refuse_repeats(name, getattr(self, name))
        if not self.metrics:
            raise ValueError("metrics: there is none")
        if (self.kind == "regression") != (not self.label_names):
            raise ValueError(f"label_names: {shown(self.label_names)} do not go with kind {self.kind!r}")

    def _check_splits(self) -> None:
        refuse_repeats("report_splits and unlabelled_splits", (*self.report_splits, *self.unlabelled_splits))
        if not self.report_splits:
            raise ValueError("report_splits: there is none")
        for name in (*self.report_splits, *self.unlabelled_splits):
            if name not in self.splits:
                raise ValueError(f"report_splits and unlabelled_splits: {shown(name)} names nothing in splits")
        for name, inputs in self.inputs.items():
            refuse_other_names(f"inputs.{name}.splits", inputs.splits, self.splits)
            if (self.modality == "image") != (name == PIXELS) or (inputs.vocabulary is None) != (name == PIXELS):
                raise ValueError(f"inputs.{name}: does not go with modality {self.modality!r}")
            if name == PIXELS and not (inputs.mean and inputs.std and len(inputs.mean) == len(inputs.std)):
                raise ValueError(f"inputs.{name}: mean and std are not one per colour")
