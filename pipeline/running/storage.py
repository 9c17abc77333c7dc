"""Where trials, prepared data, traces and records of attacks live: this project's folder, or an object store.

A path here is one below the working folder, as `Workspace` gives it, and the name of an object below the store's
prefix. docs/design/storage.md.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from filelock import FileLock

from pipeline.errors import StorageError
from pipeline.layout import HERE
from pipeline.running.address import Address, parse_address
from pipeline.running.settings import Runtime
from pipeline.running.shared_folder import Inputs, Storage
from pipeline.storage import KnownHashes, file_hash, link_or_copy, whole_file

CONTENT = "content"
"""Folder of what is stored under its hash."""
THREADS = 16
"""Files on their way at once."""
PATIENT, BRIEF = 10, 3
"""How often a store is asked in the middle of the work, some minutes in all, and at the start."""
FRESH = 7 * 86_400.0
"""Seconds after which content is stored anew by the next driver that shares it, so that its age says when it was last
used."""
PARTIAL = ".partial"
"""End of the name of what is on its way; what a killed process left of it is never read."""
CHUNK = 8 * 2**20


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
            self._files, self._prefix = address.open(PATIENT)

    def workplace(self, project: Path) -> Path:
        """A folder of this user's and this store's on the node, shared by its workers."""
        base = Path(tempfile.gettempdir()) / f"early-exit-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.getuid():
            raise StorageError(f"{base}: belongs to another user; remove it, or set TMPDIR to a folder of your own")
        folder = base / hashlib.sha256(self.name.encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        return folder

    def mark(self, name: Path) -> None:
        with self._one_line():
            self._write(name, [b"mark"])

    def check(self, mark: Path | None = None) -> None:
        from pyarrow import fs

        probe, patient = Path(f".probe-{os.urandom(8).hex()}"), self._files
        with self._one_line():
            try:
                self._files, _ = self.address.open(BRIEF)  # a wrong address shows in seconds
                self._write(probe, [b"probe"])
                found = b"".join(self._read(probe))
                self._delete(probe)
                lacks = mark is not None and self._files.get_file_info(self._at(mark)).type != fs.FileType.File
            finally:
                self._files = patient
        if found != b"probe":
            raise StorageError(f"{self.name}: answers with other bytes than it was given; check the address")
        if lacks:
            raise StorageError(
                f"{self.name}: another place than the driver's, whose mark is not there; give all nodes the same "
                "mount, endpoint and account"
            )

    def fetch(self, *paths: Path) -> None:
        self._each(self._fetch, paths)

    def publish(self, *paths: Path) -> None:
        self._each(self._publish, [path for path in paths if path.is_file()])

    def remove(self, *paths: Path) -> None:
        self._each(self._delete, paths)

    def names(self, folder: Path) -> set[Path]:
        return {*self._changed(folder)}

    def _changed(self, folder: Path) -> dict[Path, float]:
        """The files below a folder, each with the time of its last change."""
        from pyarrow import fs

        with self._one_line():
            place = self._at(folder)
            infos = self._files.get_file_info(fs.FileSelector(place, allow_not_found=True, recursive=True))
            files = [info for info in infos if info.type == fs.FileType.File and not info.path.endswith(PARTIAL)]
            return {folder / PurePosixPath(info.path).relative_to(place): (info.mtime_ns or 0) / 1e9 for info in files}

    def share(self, files: Mapping[Path, Path]) -> Inputs:
        hashes = KnownHashes(HERE.hashes)
        inputs, by_hash = {}, {}
        for target, source in files.items():
            sha256 = hashes.of(source)
            if sha256 is None:
                raise StorageError(f"{source}: no such file; run `dvc repro` again")
            inputs[target.as_posix()], by_hash[sha256] = sha256, source
        hashes.save()
        fresh = time.time() - FRESH
        present = {path.name for path, changed in self._changed(Path(CONTENT)).items() if changed > fresh}
        new = [sha256 for sha256 in by_hash if sha256 not in present]
        self._each(lambda sha256: self._write(Path(CONTENT) / sha256, _chunks(by_hash[sha256])), new)
        return inputs

    def take(self, inputs: Inputs) -> None:
        for name in inputs:
            self._at(Path(name))  # none may lie elsewhere
        HERE.runs.mkdir(exist_ok=True)
        with FileLock(HERE.runs / "storage.lock"):  # workers of a node share the folder
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
            with whole_file(near, apart=True) as partial:
                link_or_copy(path, partial)
        else:
            self._write(path, _chunks(path))

    def _write(self, path: Path, chunks: Iterable[bytes]) -> None:
        """An object, like a file, is written under another name, and renamed when it is whole."""
        if (near := self._near(path)) is not None:
            with whole_file(near, apart=True) as partial, partial.open("wb") as file:
                file.writelines(chunks)
            return
        partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
        try:
            with self._files.open_output_stream(self._at(partial)) as stream:
                for chunk in chunks:
                    stream.write(chunk)
            self._files.move(self._at(partial), self._at(path))
        except BaseException:  # a signal too; a stream knows no other end than the object as far as it came
            with suppress(OSError):
                self._delete(partial)
            raise

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


def storage_of(runtime: Runtime) -> Storage:
    """The storage of the settings, which has been written and read once.

    Raises:
        StorageError: it does not answer, or refuses.
    """
    storage = open_storage(runtime.storage)
    storage.check()
    return storage


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
