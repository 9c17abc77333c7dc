"""Files on disk: canonical JSON and atomic writes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError


def content_key(payload: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, beside `path`, which it replaces at the end.

    On an error `path` stays as it was, and the temporary file goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise
    finally:
        partial.unlink(missing_ok=True)


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


def read_json(path: Path, schema: int, remedy: str) -> dict[str, Any]:
    """Read a stored JSON file.

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
    if not isinstance(payload, dict) or version != schema or isinstance(version, bool):
        raise ArtifactError(f"{path}: schema {version!r} is not {schema}; {remedy}")
    return payload


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
