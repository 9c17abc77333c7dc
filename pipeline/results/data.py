"""What prepare leaves: the manifest of a task's data."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Part, Result


class Split(Part):
    """One split."""

    rows: int
    """Rows."""
    sha256: str
    """Hash of the split's content."""
    label_counts: dict[str, int] | None = None
    """Rows of each class, by its name; None for a regression and where labels are not known."""
    label_mean: float | None = None
    """Mean label of a regression."""
    label_std: float | None = None
    """Standard deviation of a regression's labels."""
    words_mean: float | None = None
    """Mean words of a row; None for images."""
    words_max: int | None = None
    """Words of the longest row; None for images."""


class TokenCounts(Part):
    """Lengths of a split's rows in tokens."""

    mean: float
    """Mean."""
    max: int
    """Longest."""


class Inputs(Part):
    """A task's rows in the form that one backbone reads: tokens of its tokenizer, or pixels."""

    hash: str
    """Content of train and selection rows with their labels: all that a trial learns from."""
    splits: dict[str, str]
    """Content of each split's rows with their labels, in this form."""
    vocabulary: int | None = None
    """Words of the tokenizer; None for images."""
    tokens: dict[str, TokenCounts] = {}
    """Lengths by split; empty for images."""
    mean: tuple[float, ...] | None = None
    """Mean of each colour over the training pixels, 0..1; None for texts."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each colour; None for texts."""


class Manifest(Result):
    """`data/<task>/manifest.json`: what prepare made of a task's rows."""

    made_by: ClassVar[str] = "prepare"
    task: str
    """The task's name."""
    modality: Literal["text", "image"]
    """Which backbones and methods serve it."""
    kind: Literal["classification", "regression"]
    """What an exit answers with."""
    protocol: Literal["holdout", "paper"]
    """Where selection rows come from."""
    columns: tuple[str, ...]
    """Columns of the inputs."""
    label_names: tuple[str, ...]
    """Classes in their order; empty for a regression."""
    metrics: tuple[str, ...]
    """What the score is the mean of."""
    source: dict[str, JsonValue]
    """Where the rows came from, as params.yaml or the task's own definition has it."""
    report_splits: tuple[str, ...]
    """Splits that are reported."""
    unlabelled_splits: tuple[str, ...]
    """Splits that are predicted only."""
    splits: dict[str, Split]
    """Every split by its name: train, selection, the reported and the predicted ones."""
    inputs: dict[str, Inputs]
    """By backbone for texts; for images one entry, "pixels"."""
