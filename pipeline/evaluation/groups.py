"""Groups of models with their traces, as the trace stage stored them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.evaluation.trace import Trace, load_trace
from pipeline.results import TraceEntry, TraceIndex
from pipeline.results.traces import SELECTION
from pipeline.storage import file_hash


@dataclass(frozen=True)
class SeedTraces:
    """One seed of a group: its trial's key and its traces by split (selection and the report splits)."""

    seed: int
    key: str
    traces: Mapping[str, Trace]


@dataclass(frozen=True)
class Group:
    """The traces of a backbone and a method.

    Attributes:
        multi_exit: whether criteria apply.
        seeds: in the order of training.
        unlabelled: trial's key to its traces of splits without labels, by split.
    """

    backbone: str
    method: str
    multi_exit: bool
    seeds: tuple[SeedTraces, ...]
    unlabelled: Mapping[str, Mapping[str, Trace]] = field(default_factory=dict)

    @property
    def report_splits(self) -> list[str]:
        """Labelled splits without the selection split, in the task's order."""
        return [split for split in self.seeds[0].traces if split != SELECTION]


def load_groups(index: TraceIndex, folder: Path) -> Iterator[Group]:
    """The groups of an index, each with its traces from `folder`, one group in memory at a time.

    Raises:
        ArtifactError: a trace is missing, cut short, of another schema, or not the one of the index.
    """
    remedy = f"run `dvc repro -f trace@{index.task}`"

    def load(entries: Iterable[TraceEntry]) -> dict[str, Trace]:
        return {entry.split: _load(folder / entry.file, entry, remedy) for entry in entries}

    for (backbone, method, multi_exit), members in groupby(
        index.traces, key=lambda e: (e.backbone, e.method, e.multi_exit)
    ):
        seeds = tuple(
            SeedTraces(seed, key, load(of_seed))
            for (seed, key), of_seed in groupby(members, key=lambda e: (e.seed, e.key))
        )
        unlabelled = {member.key: load(e for e in index.unlabelled if e.key == member.key) for member in seeds}
        yield Group(backbone, method, multi_exit, seeds, unlabelled)


def _load(path: Path, entry: TraceEntry, remedy: str) -> Trace:
    trace = load_trace(path, remedy)
    if file_hash(path) != entry.sha256 or trace.rows != entry.rows:
        raise ArtifactError(f"{path}: not the trace that the index names; {remedy}")
    return trace
