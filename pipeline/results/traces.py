"""Results of trace: the index of the traces."""

from itertools import groupby
from typing import ClassVar

from pipeline.layout import HERE
from pipeline.results.base import Count, Name, Part, Result, Seed, Text, refuse_other_names, refuse_repeats

SELECTION = "selection"
"""The split on which thresholds are chosen."""


class TraceEntry(Part):
    """One trace: a selected model on a split."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    multi_exit: bool
    """Whether criteria apply."""
    seed: Seed
    """Seed of the trial."""
    key: Name
    """Key of the trial."""
    weights_sha256: str
    """Hash of the model's file."""
    split: Name
    """Name of the split."""
    file: Text
    """Name of the trace's file, beside the index."""
    sha256: str
    """Hash of that file."""
    rows: Count
    """Number of rows."""

    def check(self) -> None:
        if self.file != HERE.trace("", self.key, self.split).name:
            raise ValueError(f"file: {self.file!r} is not named by key and split")


class TraceIndex(Result):
    """`outputs/traces/<task>/index.json`.

    Splits without labels are in a separate list, so that code that computes scores does not read them.
    """

    made_by: ClassVar[str] = "trace"
    task: Name
    """The task's name."""
    traces: tuple[TraceEntry, ...]
    """Traces of the selection and report splits."""
    unlabelled: tuple[TraceEntry, ...]
    """Traces of splits without labels."""

    def check(self) -> None:
        every = (*self.traces, *self.unlabelled)
        refuse_repeats("traces", (entry.file for entry in every))
        groups = [(kind, [*entries]) for kind, entries in groupby(self.traces, key=lambda e: (e.backbone, e.method))]
        refuse_repeats("traces", (kind for kind, _ in groups))
        seeds = {(entry.backbone, entry.method, entry.seed): entry.key for entry in self.traces}
        splits, hidden = ({entry.split for entry in entries} for entries in (self.traces, self.unlabelled))
        if self.traces and (SELECTION not in splits or len(splits) == 1):
            raise ValueError(f"traces: {SELECTION!r} or every report split is missing")
        models = {(*model, key) for model, key in seeds.items()}
        for name, entries, wanted in (("traces", self.traces, splits), ("unlabelled", self.unlabelled, hidden)):
            given = ((e.backbone, e.method, e.seed, e.key, e.split) for e in entries)
            refuse_other_names(name, given, ((*model, split) for model in models for split in wanted))
        for kind, members in groups:
            if len({entry.multi_exit for entry in members}) > 1:
                raise ValueError(f"traces of {'/'.join(kind)}: multi_exit differs")
            refuse_repeats("traces", (seed for seed, _ in groupby(entry.seed for entry in members)))
