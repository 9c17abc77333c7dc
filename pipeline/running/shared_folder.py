"""The storage of a cluster whose nodes see one disk; the contract of every storage."""

from collections.abc import Iterable, Mapping
from pathlib import Path

Inputs = Mapping[str, str]
"""Path below the working folder to the hash of what must lie there (`pipeline.storage.file_hash`)."""


class Storage:
    """A folder that every node sees: what one writes is there for all, so nothing has to travel.

    Attributes:
        name: for messages.
        text: the address, which a worker opens; None for the project's folder.
        travels: whether files go to and from another place.
    """

    name = "the project's folder"
    text: str | None = None
    travels = False

    def workplace(self, project: Path) -> Path:
        """The folder in which a worker works: the project's own."""
        return project

    def mark(self, name: Path) -> None:
        """Leave a mark by which other nodes know that they see the same place."""

    def check(self, mark: Path | None = None) -> None:
        """Raise StorageError where the place cannot be written and read."""

    def fetch(self, *paths: Path) -> None:
        """Bring files here; those that are not there are left out."""

    def publish(self, *paths: Path) -> None:
        """Store files, at once and in any order; those that are not here are left out."""

    def remove(self, *paths: Path) -> None:
        """Remove files from the store, where they are there."""

    def recover(self, folder: Path, paths: Iterable[Path]) -> None:
        """Bring those of some files below a folder that are there and not here."""
        there = self.names(folder)
        self.fetch(*(path for path in paths if path in there and not path.is_file()))

    def names(self, folder: Path) -> set[Path]:
        """The files of the store below a folder; none where nothing travels."""
        return set()

    def share(self, files: Mapping[Path, Path]) -> Inputs:
        """Store files by their content, for `take` to put at other paths.

        Args:
            files: path below a worker's folder to the file here.
        """
        return {}

    def take(self, inputs: Inputs) -> None:
        """Put what was shared where it belongs; what is there already stays."""
