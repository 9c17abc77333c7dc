"""What trace leaves beside the traces: which there are."""

from typing import ClassVar

from pipeline.results.base import Part, Result


class TraceEntry(Part):
    """One trace: a selected model on a split."""

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    multi_exit: bool
    """Whether criteria apply."""
    seed: int
    """Of the trial."""
    key: str
    """Of the trial."""
    weights_sha256: str
    """Hash of the model's file."""
    split: str
    """Name of the split."""
    file: str
    """Name of the trace's file, beside the index."""
    sha256: str
    """Hash of that file."""
    rows: int
    """Rows recorded."""


class TraceIndex(Result):
    """`outputs/traces/<task>/index.json`.

    Splits without labels have a list of their own, so that whoever computes scores meets none.
    """

    made_by: ClassVar[str] = "trace"
    task: str
    """The task's name."""
    traces: tuple[TraceEntry, ...]
    """Selection and report splits."""
    unlabelled: tuple[TraceEntry, ...]
    """Splits without labels."""
