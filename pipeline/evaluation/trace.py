"""The trace: the answers of every exit for every row of a split, with their costs and their origin.

One safetensors file (no pickle), readable without this project:

| tensor    | shape                | dtype   | meaning                                                      |
|-----------|----------------------|---------|--------------------------------------------------------------|
| logits    | (n, exits, classes)  | float32 | answers of every exit; regression: classes = 1, label units   |
| labels    | (n,)                 | float64 | class index, or the real value; NaN where unknown             |
| row_ids   | (n,)                 | int64   | which row of the split                                       |
| layers    | (exits,)             | float64 | backbone layers run when a row leaves at this exit            |
| flops     | (n, exits)           | float64 | FLOPs of a row that leaves at this exit, heads on the way in  |
| full_flops| (n,)                 | float64 | FLOPs of the row in a plain model: all layers, one head       |
| full_layers| ()                 | float64 | optional: layers of the plain model; absent: the last of layers |
| last_flops| (n,)                 | float64 | optional: FLOPs of all layers of this model with its last head alone |
| channel.* | (n, exits[, k])      | float32 | optional: further values of an exit, read by some criteria    |

`channel.lte` is the certainty that BERxiT's small head predicts, 0 to 1. docs/trace-format.md shows how to write such a
file without this project.

Metadata: `schema`, `kind` (classification or regression), `label_names` and `provenance`, JSON-encoded; optional
`answers`, `classes` where the exits gave their class alone (a hard label), which logits name with 0 beside -inf.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.errors import ArtifactError, shown
from pipeline.evaluation.arrays import largest_class
from pipeline.evaluation.trace_checks import is_whole, refuse_faults, refuse_undefined
from pipeline.storage import file_hash, whole_file

SCHEMA = "early-exit-trace/1"
_TENSORS = ("logits", "labels", "row_ids", "layers", "flops", "full_flops")
_OPTIONAL = ("full_layers", "last_flops")
_CHANNEL = "channel."
WRITE = "write it as docs/trace-format.md shows"
_NUMBERS = frozenset(["BOOL", "F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"])
"""The number types of safetensors that NumPy has; it lacks bfloat16 and the 8-bit floats."""


@dataclass(frozen=True)
class Trace:
    """One recorded pass of a multi-exit model over a split; arrays as in the module's table."""

    kind: str
    logits: np.ndarray
    labels: np.ndarray
    row_ids: np.ndarray
    layers: np.ndarray
    flops: np.ndarray
    full_flops: np.ndarray
    label_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, np.ndarray] = field(default_factory=dict)
    full_layers: float | None = None
    last_flops: np.ndarray | None = None
    hard: bool = False
    """Whether the exits gave their classes alone, so that logits hold no probabilities."""

    def __post_init__(self) -> None:
        refuse_faults(self)

    @property
    def all_layers(self) -> float:
        """Layers of the plain model, the reference of layer speed-ups."""
        return float(self.layers[-1]) if self.full_layers is None else self.full_layers

    @property
    def rows(self) -> int:
        return int(self.logits.shape[0])

    @property
    def exits(self) -> int:
        return int(self.logits.shape[1])

    @property
    def classes(self) -> int:
        return int(self.logits.shape[2])

    @property
    def last_cost(self) -> np.ndarray:
        """FLOPs of each row through all layers of this model, (n,)."""
        return self.flops[:, -1] if self.last_flops is None else self.last_flops

    def answers(self) -> np.ndarray:
        """Prediction of every exit, (n, exits) float64: class index, or the real value.

        Raises:
            InvalidLogitsError: the logits of an exit are NaN, or infinite so that they name no answer.
        """
        refuse_undefined(self)
        if self.kind == "regression":
            return self.logits[:, :, 0].astype(np.float64)
        answers: np.ndarray = largest_class(self.logits).astype(np.float64)
        return answers


def require_labels(trace: Trace) -> None:
    """Raise ArtifactError where a row has no label."""
    unknown = int(np.isnan(trace.labels).sum())
    if unknown:
        raise ArtifactError(f"trace: {unknown} of {trace.rows} rows have no label; leave them out of the trace")


def save_trace(trace: Trace, path: Path) -> str:
    """Write a trace atomically; return the hash of the file, as `file_hash` gives it."""
    tensors = {name: np.ascontiguousarray(getattr(trace, name)) for name in _TENSORS}
    tensors |= {_CHANNEL + name: np.ascontiguousarray(values) for name, values in trace.channels.items()}
    if trace.full_layers is not None:
        tensors["full_layers"] = np.array(trace.full_layers, dtype=np.float64)
    if trace.last_flops is not None:
        tensors["last_flops"] = np.ascontiguousarray(trace.last_flops)
    metadata = {
        "schema": SCHEMA,
        "kind": trace.kind,
        "label_names": json.dumps(list(trace.label_names)),
        "provenance": json.dumps(trace.provenance, sort_keys=True),
        **({"answers": "classes"} if trace.hard else {}),
    }
    content = _ordered(save(tensors, metadata=metadata))
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return file_hash(path)


def _ordered(content: bytes) -> bytes:
    """The same safetensors file with its metadata sorted.

    The library's order of metadata differs between processes, so equal traces would have different hashes.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)  # spaces pad the header, so that tensors stay aligned
    return len(written).to_bytes(8, "little") + written + content[start:]


def load_trace(path: Path, remedy: str = WRITE) -> Trace:
    """Read a trace.

    Args:
        remedy: the end of the message where the file is missing or is no trace; it serves files of other programs.

    Raises:
        ArtifactError: missing, cut short, not a trace, of another schema version, or with impossible values.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such trace; {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise ArtifactError(f"{path}: schema {shown(metadata.get('schema'))} is not {SCHEMA!r}; {remedy}")
            stored = set(file.keys())
            missing = set(_TENSORS) - stored
            if missing:
                raise ArtifactError(f"{path}: tensors {sorted(missing)} are missing; {remedy}")
            names = [name for name in sorted(stored) if name in (*_TENSORS, *_OPTIONAL) or name.startswith(_CHANNEL)]
            for name in names:
                number = file.get_slice(name).get_dtype()
                if number not in _NUMBERS:
                    raise ArtifactError(f"{path}: tensor {name!r} holds {number}, not F32; write it as float32")
            tensors = {name: _float(name, file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: unreadable or cut short ({error}); {remedy}") from None
    try:
        return Trace(
            kind=metadata.get("kind", ""),
            label_names=_names(_parsed(metadata, "label_names", [])),
            provenance=_parsed(metadata, "provenance", {}),
            channels={n.removeprefix(_CHANNEL): tensors.pop(n) for n in names if n.startswith(_CHANNEL)},
            full_layers=_scalar(tensors.pop("full_layers", None)),
            hard=_is_hard(metadata.get("answers")),
            **tensors,
        )
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {str(error).removeprefix('trace: ')}") from None


def _float(name: str, values: np.ndarray) -> np.ndarray:
    """Numbers of any type as replay reads them: row ids whole, costs and labels float64, the rest some float.

    Differences of unsigned numbers would wrap. Row ids that are not whole stay, and are refused with the other faults.
    """
    if name == "row_ids":
        return values.astype(np.int64) if is_whole(values).all() else values
    if name == "logits" or name.startswith(_CHANNEL):
        return values if values.dtype.kind == "f" else values.astype(np.float32)
    return values.astype(np.float64)


def _parsed(metadata: dict[str, str], name: str, absent: Any) -> Any:
    try:
        return json.loads(metadata[name]) if name in metadata else absent
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"trace: {name} of the metadata is no JSON ({error}); write it with json.dumps") from None


def _names(value: Any) -> Any:
    """A JSON list as a tuple; what is none is refused with the trace's other faults."""
    return tuple(value) if isinstance(value, list) else value


def _is_hard(answers: str | None) -> bool:
    if answers not in (None, "classes"):
        raise ArtifactError(
            f"trace: answers {shown(answers)} of the metadata is not 'classes'; mend it or leave it out"
        )
    return answers is not None


def _scalar(value: np.ndarray | None) -> float | None:
    if value is not None and value.shape != ():
        raise ArtifactError(
            f"trace: full_layers has shape {value.shape}, expected (); write one number, as numpy.array(12.0)"
        )
    return None if value is None else float(value)
