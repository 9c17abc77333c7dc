"""Names of an exported model's files, and the check of their hashes. Needs nothing but the standard library."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError

SCHEMA = 3
DESCRIPTION, CARD, TOKENIZER = "model.json", "README.md", "tokenizer.json"
EMBEDDING, HEADS = "embedding.onnx", "heads.npz"
LAYER, EXIT = "layer", "exit"
FLOAT32, INT8 = "float32", "int8"
REMEDY = "export the model again"


def graph_file(kind: str, number: int, precision: str) -> str:
    """Name of the graph of a layer or an exit, counted from 1.

    >>> graph_file(LAYER, 1, INT8)
    'layer-01.int8.onnx'
    """
    return f"{kind}-{number:02d}.{precision}.onnx"


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_description(folder: Path) -> dict[str, Any]:
    """Read model.json, and check that every file it names is there with the content it had.

    Raises:
        ArtifactError: missing, unreadable, of another schema, or a file is missing or was changed.
    """
    path = folder / DESCRIPTION
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        schema, files = read["schema"], read["files"].items()
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; name a folder that `python -m pipeline export` wrote") from None
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: no readable description ({error}); {REMEDY}") from None
    if schema != SCHEMA:
        raise ArtifactError(f"{path}: schema {schema!r} is not {SCHEMA}; {REMEDY}")
    for name, expected in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise ArtifactError(f"{folder / str(name)}: no such file; {REMEDY}")
        if hash_of(folder / name) != expected:
            raise ArtifactError(f"{folder / name}: its content is not what was exported; {REMEDY}")
    description: dict[str, Any] = read
    return description
