"""Results of prepare: the manifest of a task's data."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Part, Result


class Split(Part):
    """One split."""

    rows: int
    """Number of rows."""
    sha256: str
    """Hash of the split's content."""
    label_counts: dict[str, int] | None = None
    """Number of rows by class name; None for a regression and without labels."""
    label_mean: float | None = None
    """Mean label of a regression."""
    label_std: float | None = None
    """Standard deviation of a regression's labels."""
    words_mean: float | None = None
    """Mean number of words of a row; None for images."""
    words_max: int | None = None
    """Largest number of words of a row; None for images."""


class TokenCounts(Part):
    """Lengths of a split's rows in tokens."""

    mean: float
    """Mean length."""
    max: int
    """Largest length."""


class Inputs(Part):
    """The inputs of one backbone: tokens of its tokenizer, or pixels."""

    hash: str
    """Hash of train and selection rows with their labels, which are the data of a trial."""
    splits: dict[str, str]
    """Hash of each split's inputs and labels."""
    vocabulary: int | None = None
    """Size of the tokenizer's vocabulary; None for images."""
    tokens: dict[str, TokenCounts] = {}
    """Lengths by split; empty for images."""
    mean: tuple[float, ...] | None = None
    """Mean of each colour over the training pixels, 0..1; None for texts."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each colour; None for texts."""


class Manifest(Result):
    """`data/<task>/manifest.json`: the prepared data of a task."""

    schema_version: ClassVar[int] = 3
    made_by: ClassVar[str] = "prepare"
    task: str
    """The task's name."""
    modality: Literal["text", "image"]
    """Kind of the rows; it selects backbones and methods."""
    kind: Literal["classification", "regression"]
    """Kind of the answers."""
    protocol: Literal["holdout", "paper"]
    """Source of the selection rows."""
    columns: tuple[str, ...]
    """Columns of the inputs."""
    label_names: tuple[str, ...]
    """Classes in their order; empty for a regression."""
    metrics: tuple[str, ...]
    """Metrics, whose mean is the score."""
    source: dict[str, JsonValue]
    """Source of the rows, from params.yaml or the task's definition."""
    files: dict[str, str] = {}
    """SHA-256 of each local file that they were made from, by its role: source/..., or a backbone's name/...."""
    report_splits: tuple[str, ...]
    """Labelled splits that the report shows."""
    unlabelled_splits: tuple[str, ...]
    """Splits without labels, which are predicted."""
    splits: dict[str, Split]
    """Every split by its name: train, selection, report splits and splits without labels."""
    inputs: dict[str, Inputs]
    """By backbone for texts; for images one entry, "pixels"."""
