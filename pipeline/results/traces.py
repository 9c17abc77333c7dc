"""Results of trace: the index of the traces."""

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
    """Seed of the trial."""
    key: str
    """Key of the trial."""
    weights_sha256: str
    """Hash of the model's file."""
    split: str
    """Name of the split."""
    file: str
    """Name of the trace's file, beside the index."""
    sha256: str
    """Hash of that file."""
    rows: int
    """Number of rows."""


class TraceIndex(Result):
    """`outputs/traces/<task>/index.json`.

    Splits without labels are in a separate list, so that code that computes scores does not read them.
    """

    made_by: ClassVar[str] = "trace"
    task: str
    """The task's name."""
    traces: tuple[TraceEntry, ...]
    """Traces of the selection and report splits."""
    unlabelled: tuple[TraceEntry, ...]
    """Traces of splits without labels."""
