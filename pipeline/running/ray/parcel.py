"""Jobs as they travel to nodes that share no disk: with what they read, and back with what they wrote."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.running.ray.worker import enter, load
from pipeline.running.shared_folder import Inputs, Storage
from pipeline.running.storage import open_storage


class Travels(Protocol):
    """A job that may run on a node without the project's disk; where nothing travels, a job may be anything."""

    def reads(self) -> Mapping[Path, Path]:
        """The files that it reads: path below the worker's folder to the file here."""
        ...

    def writes(self) -> Iterable[Path]:
        """The files that it may write, below the working folder."""
        ...


@dataclass(frozen=True)
class Parcel:
    """A job for another process.

    Attributes:
        folder: the project's.
        storage: its address; None: every node sees the folder.
        inputs, outputs: what travels with it, and back.
    """

    job: Any
    folder: str
    storage: str | None = None
    inputs: Inputs = field(default_factory=dict)
    outputs: tuple[Path, ...] = ()

    def run(self, runner: str) -> Any:
        """Run the job in a worker."""
        storage = open_storage(self.storage)
        enter(storage, self.folder)
        storage.take(self.inputs)
        storage.fetch(*self.outputs)  # of an attempt elsewhere
        result = load(runner)(self.job)
        storage.publish(*self.outputs)
        return result

    def run_here(self, runner: str) -> Any:
        """Run the job in the driver."""
        result = load(runner)(self.job)
        open_storage(self.storage).publish(*self.outputs)
        return result


def packed(storage: Storage, jobs: Sequence[Any]) -> list[Parcel]:
    """Jobs with what they read, which the storage then has."""
    folder = str(Path.cwd())
    if not storage.travels:
        return [Parcel(job, folder) for job in jobs]
    reads = [job.reads() for job in jobs]
    shared = storage.share({target: source for files in reads for target, source in files.items()})
    return [
        Parcel(
            job, folder, storage.text, {path.as_posix(): shared[path.as_posix()] for path in files}, (*job.writes(),)
        )
        for job, files in zip(jobs, reads, strict=True)
    ]


def unpacked(storage: Storage, done: Callable[[Any, Any], None]) -> Callable[[Parcel, Any], None]:
    """What to call with each parcel and its result: its files come home first."""

    def home(parcel: Parcel, result: Any) -> None:
        storage.fetch(*(path for path in parcel.outputs if not path.is_file()))
        done(parcel.job, result)

    return home
