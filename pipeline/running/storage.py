"""Where trials, prepared data, traces and records of attacks live: this project's folder, or an object store.

A path here is one below the working folder, as `Workspace` gives it, and the name of an object below the store's
prefix. docs/design/storage.md.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from pipeline.errors import StorageError
from pipeline.layout import HERE
from pipeline.running.address import Address, parse_address
from pipeline.storage import KnownHashes, file_hash, link_or_copy, whole_file

Inputs = Mapping[str, str]
"""Path below the working folder to the SHA-256 of what must lie there."""
CONTENT = "content"
"""Folder of what is stored under its hash."""
THREADS = 16
"""Files on their way at once."""
CHUNK = 8 * 2**20


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

    def check(self) -> None:
        """Raise StorageError where the place cannot be written and read."""

    def fetch(self, *paths: Path) -> None:
        """Bring files here; those that are not there are left out."""

    def publish(self, *paths: Path) -> None:
        """Store files, at once and in any order; those that are not here are left out."""

    def remove(self, *paths: Path) -> None:
        """Remove files from the store, where they are there."""

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


class ObjectStorage(Storage):
    """A prefix of a bucket, or a folder beside the project; nodes share nothing else.

    Args:
        address: as `runtime.storage` has it.

    Raises:
        StorageError: of every method, where the store does not answer or refuses.
    """

    travels = True

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name, self.text = str(address), address.text
        with self._one_line():
            self._files, self._prefix = _open(address)

    def workplace(self, project: Path) -> Path:
        """A folder of this user's and this store's on the node, shared by its workers."""
        base = Path(tempfile.gettempdir()) / f"early-exit-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.getuid():
            raise StorageError(f"{base}: belongs to another user; remove it, or set TMPDIR to a folder of your own")
        folder = base / hashlib.sha256(self.name.encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        return folder

    def check(self) -> None:
        probe = Path(f".probe-{os.urandom(8).hex()}")
        with self._one_line():
            self._write(probe, [b"probe"])
            found = b"".join(self._read(probe))
            self._delete(probe)
        if found != b"probe":
            raise StorageError(f"{self.name}: answers with other bytes than it was given; check the address")

    def fetch(self, *paths: Path) -> None:
        self._each(self._fetch, paths)

    def publish(self, *paths: Path) -> None:
        self._each(self._publish, [path for path in paths if path.is_file()])

    def remove(self, *paths: Path) -> None:
        self._each(self._delete, paths)

    def names(self, folder: Path) -> set[Path]:
        from pyarrow import fs

        with self._one_line():
            place = self._at(folder)
            infos = self._files.get_file_info(fs.FileSelector(place, allow_not_found=True, recursive=True))
            return {folder / PurePosixPath(i.path).relative_to(place) for i in infos if i.type == fs.FileType.File}

    def share(self, files: Mapping[Path, Path]) -> Inputs:
        hashes = KnownHashes(HERE.hashes)
        inputs, by_hash = {}, {}
        for target, source in files.items():
            sha256 = hashes.of(source)
            if sha256 is None:
                raise StorageError(f"{source}: no such file; run `dvc repro` again")
            inputs[target.as_posix()], by_hash[sha256] = sha256, source
        hashes.save()
        present = {path.name for path in self.names(Path(CONTENT))}
        new = [sha256 for sha256 in by_hash if sha256 not in present]
        self._each(lambda sha256: self._write(Path(CONTENT) / sha256, _chunks(by_hash[sha256])), new)
        return inputs

    def take(self, inputs: Inputs) -> None:
        with FileLock(".storage.lock"):  # workers of a node share the folder
            hashes = KnownHashes(HERE.hashes)
            other = [(Path(path), sha256) for path, sha256 in inputs.items() if hashes.of(Path(path)) != sha256]
            self._each(lambda entry: self._take(*entry), other)
            for path, _ in other:
                hashes.of(path)
            hashes.save()

    # One file

    def _take(self, path: Path, sha256: str) -> None:
        source = Path(CONTENT) / sha256
        with whole_file(path) as partial:
            self._receive(source, partial)
            if file_hash(partial) != sha256:
                raise StorageError(f"{self.name}/{source}: holds other bytes than its name says; remove it, run again")

    def _fetch(self, path: Path) -> None:
        try:
            with whole_file(path) as partial:
                self._receive(path, partial)
        except FileNotFoundError:
            pass

    def _receive(self, path: Path, target: Path) -> None:
        if (near := self._near(path)) is not None:
            link_or_copy(near, target)
            return
        with target.open("wb") as file:
            file.writelines(self._read(path))

    def _publish(self, path: Path) -> None:
        if (near := self._near(path)) is not None:
            with whole_file(near) as partial:
                link_or_copy(path, partial)
        else:
            self._write(path, _chunks(path))

    def _write(self, path: Path, chunks: Iterable[bytes]) -> None:
        """An object appears whole at the end; a file is renamed."""
        if (near := self._near(path)) is not None:
            with whole_file(near) as partial, partial.open("wb") as file:
                file.writelines(chunks)
            return
        with self._files.open_output_stream(self._at(path)) as stream:
            for chunk in chunks:
                stream.write(chunk)

    def _read(self, path: Path) -> Iterator[bytes]:
        with self._files.open_input_stream(self._at(path)) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def _delete(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            self._files.delete_file(self._at(path))

    def _at(self, path: Path) -> str:
        if path.is_absolute() or ".." in path.parts:
            raise StorageError(f"{path}: lies outside the working folder, so it has no place in {self.name}")
        return f"{self._prefix}/{path.as_posix()}"

    def _near(self, path: Path) -> Path | None:
        """The file itself, where the store is a folder: it is linked, so that both are one on disk and in memory."""
        return Path(self._at(path)) if self.address.scheme == "file" else None

    def _each(self, one: Callable[[Any], None], items: Iterable[Any]) -> None:
        items = list(items)
        with self._one_line():
            if len(items) == 1:
                one(items[0])
            elif items:
                with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
                    list(pool.map(one, items))

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: pyarrow's own errors
            raise self.address.refused(error) from None


@cache
def open_storage(value: str | None) -> Storage:
    """The storage that `runtime.storage` names; None: the project's folder, which all nodes see."""
    return Storage() if value is None else ObjectStorage(parse_address(value))


def _open(address: Address) -> tuple[Any, str]:
    """pyarrow's file system of an address, and the path of the prefix in it."""
    from pyarrow import fs

    options = dict(address.options)
    if address.scheme == "file":
        return fs.LocalFileSystem(), address.place
    if address.scheme == "gs":
        return fs.GcsFileSystem(anonymous=address.anonymous, **options), address.place
    if "endpoint_override" not in options and "region" not in options:
        options["region"] = fs.resolve_s3_region(address.place.partition("/")[0])
    return fs.S3FileSystem(connect_timeout=10, request_timeout=60, **options), address.place


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
