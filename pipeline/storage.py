"""Files on disk: canonical JSON and atomic writes."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError


def content_key(payload: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def whole_file(path: Path, *, apart: bool = False) -> Iterator[Path]:
    """A temporary file to write, beside `path`, which it replaces at the end.

    On an error it is removed, and `path` stays as it was.

    Args:
        apart: whether others may write `path` at the same time: the temporary file has a name of its own. One that a
            kill leaves is then not written over by the next writer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial" if apart else f"{path.name}.partial")
    if partial.is_symlink():  # it would be written through, wherever it leads
        partial.unlink()
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise
    except Exception as error:  # safetensors has a type of its own
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise
    finally:
        with suppress(OSError):  # it was renamed, or never made
            partial.unlink()


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Alone, of all processes, with what is made under a name in a cache that several share; waits its turn.

    Args:
        folder: holds a lock file per name.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield


def write_text(path: Path, text: str) -> Path:
    """Write a file atomically."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; it replaces `folder` at the end, and is removed on an error."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, payload: Mapping[str, Any]) -> Path:
    """Write canonical JSON atomically."""
    return write_text(path, json.dumps(payload, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, schema: int | tuple[int, ...], remedy: str) -> dict[str, Any]:
    """Read a stored JSON file.

    Args:
        schema: its schema version; of several the newest first.

    Raises:
        ArtifactError: missing, cut short, or of another schema version.
    """
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: unreadable or cut short ({error}); {remedy}") from None
    version = payload.get("schema") if isinstance(payload, dict) else None
    versions = (schema,) if isinstance(schema, int) else schema
    if not isinstance(payload, dict) or type(version) is not int or version not in versions:
        raise ArtifactError(f"{path}: schema {version!r} is not {versions[0]}; {remedy}")
    return payload


def read_yaml(path: Path) -> Any:
    """Read a YAML file as DVC reads it: YAML 1.2, in which `no` is a text and 2e-5 a number; no key stands twice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not readable as YAML; the message is one line, and names the line of the file where it can.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def parse_yaml(text: str) -> Any:
    """Read YAML as `read_yaml` does.

    Raises:
        ValueError: not readable as YAML, in one line.
    """
    from ruamel.yaml.error import YAMLError

    try:
        return _yaml().load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (YAMLError, ValueError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        at = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(at + reason.partition("; use sys.")[0][:200]) from None


def _yaml() -> Any:
    """DVC's reader, less the underscores in numbers, which YAML 1.2 does not have."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import ConstructorError, SafeConstructor

    class Constructor(SafeConstructor):
        def number(self, node: Any) -> Any:
            if "_" in node.value:
                raise ConstructorError(None, None, f"{node.value!r} is no number; write it without _", node.start_mark)
            kind = node.tag.rpartition(":")[2]
            return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)

    for kind in ("int", "float"):
        Constructor.add_constructor(f"tag:yaml.org,2002:{kind}", Constructor.number)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    return yaml


def file_hash(*paths: Path) -> str:
    """SHA-256 over the contents of files, in the order of the arguments."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def link_or_copy(source: Path, target: Path) -> Path:
    """Put a file under another name: a hard link, or a copy where the disk has none. Neither may be edited in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file that will be edited in place, as DVC and SQLite do; over itself, it shares no disk with others."""
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
    return target


class KnownHashes:
    """SHA-256 of files that are read again and again, each content read once.

    A file is known by place, size, inode and time of change of its content; not by ctime, which a hard link to it
    changes.

    Args:
        path: JSON file that keeps the hashes.
    """

    SCHEMA = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._hashes: dict[str, str] = read_json(path, self.SCHEMA, "")["hashes"]
        except (ArtifactError, KeyError):
            self._hashes = {}
        self._before = dict(self._hashes)

    def of(self, file: Path) -> str | None:
        """The file's hash; None where there is no such file."""
        try:
            stat = file.stat()
            state = content_key({"file": str(file), "is": [stat.st_size, stat.st_mtime_ns, stat.st_ino]})
            if state not in self._hashes:
                self._hashes[state] = file_hash(file)
        except OSError:
            return None
        return self._hashes[state]

    def save(self) -> None:
        """Keep what is new for the next time."""
        if self._hashes != self._before:
            with claimed(self.path.parent / "locks", self.path.stem):
                write_json(self.path, {"schema": self.SCHEMA, "hashes": self._hashes})
