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
| channel.* | (n, exits[, k])      | float32 | optional: further values of an exit, read by some criteria    |

`channel.lte` is the certainty that BERxiT's small head predicts, 0 to 1. docs/trace-format.md shows how to write such a
file without this project.

Metadata: `schema`, `kind` (classification or regression), `label_names` and `provenance`, JSON-encoded.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.errors import ArtifactError, InvalidLogitsError
from pipeline.evaluation.arrays import largest_class
from pipeline.storage import whole_file

SCHEMA = "early-exit-trace/1"
_TENSORS = ("logits", "labels", "row_ids", "layers", "flops", "full_flops")
_CHANNEL = "channel."
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

    def __post_init__(self) -> None:
        if self.logits.ndim != 3:
            raise ArtifactError(f"trace: logits have shape {self.logits.shape}, expected (rows, exits, classes)")
        n, exits, classes = self.logits.shape
        expected = {
            "labels": (n,),
            "row_ids": (n,),
            "layers": (exits,),
            "flops": (n, exits),
            "full_flops": (n,),
        }
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ArtifactError(f"trace: {name} has shape {got}, expected {shape}; record the trace again")
        for name, values in self.channels.items():
            if values.shape[:2] != (n, exits) or values.ndim not in (2, 3):
                raise ArtifactError(
                    f"trace: channel {name!r} has shape {values.shape}, expected ({n}, {exits}) or ({n}, {exits}, k)"
                )
        if self.kind not in ("classification", "regression"):
            raise ArtifactError(f"trace: kind {self.kind!r} is neither classification nor regression")
        if self.kind == "regression" and classes != 1:
            raise ArtifactError(f"trace: regression needs one output per exit, found {classes}")
        if self.kind == "classification":
            self._refuse_labels()
        self._refuse_layers()

    def _refuse_labels(self) -> None:
        """Raise ArtifactError where a label is no class index; it would silently count as wrong at every exit."""
        if self.classes < 2:  # with one class all exits would agree and be certain
            raise ArtifactError(
                f"trace: classification needs a logit per class, found {self.classes} per exit; "
                "write two for a binary task, or give kind regression"
            )
        labels = self.labels
        valid = (labels >= 0) & (labels < self.classes) & (labels == np.floor(labels))
        bad = ~(valid | np.isnan(labels))
        if bad.any():
            row = int(np.argmax(bad))
            raise ArtifactError(
                f"trace: label {labels[row]:g} of row {self.row_ids[row]} is no class index 0..{self.classes - 1}; "
                "count classes from 0 and write NaN where a label is unknown"
            )

    def _refuse_layers(self) -> None:
        """Raise ArtifactError where layers do not ascend; speed-ups would be relative to the wrong depth."""
        layers = self.layers
        rising = self.exits > 0 and layers[0] >= 0 and np.all(layers[1:] >= layers[:-1])  # False where one is NaN
        if not (rising and 0 < layers[-1] < np.inf):
            raise ArtifactError(
                f"trace: layers {layers.tolist()} do not ascend to a number above 0; "
                "give the layers run at each exit, the earliest exit first"
            )
        if not 0 < self.all_layers < np.inf:
            raise ArtifactError(f"trace: full_layers {self.all_layers:g} is not above 0; give the plain model's layers")

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

    def refuse_nan(self, name: str, values: np.ndarray) -> None:
        """Raise InvalidLogitsError, with row and exit, where `values` (n, exits[, k]) has a NaN."""
        bad = np.isnan(values)
        if bad.any():
            row, exit_index = (int(i[0]) for i in np.nonzero(bad)[:2])
            raise InvalidLogitsError(
                f"trace: {name} of row {int(self.row_ids[row])} are NaN at exit {exit_index + 1}; "
                "the model diverged: lower its learning rate and train it again"
            )

    def answers(self) -> np.ndarray:
        """Prediction of every exit, (n, exits) float64: class index, or the real value.

        Raises:
            InvalidLogitsError: a logit is NaN.
        """
        self.refuse_nan("logits", self.logits)
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
    """Write a trace atomically; return the SHA-256 of the file."""
    tensors = {name: np.ascontiguousarray(getattr(trace, name)) for name in _TENSORS}
    tensors |= {_CHANNEL + name: np.ascontiguousarray(values) for name, values in trace.channels.items()}
    if trace.full_layers is not None:
        tensors["full_layers"] = np.array(trace.full_layers, dtype=np.float64)
    metadata = {
        "schema": SCHEMA,
        "kind": trace.kind,
        "label_names": json.dumps(list(trace.label_names)),
        "provenance": json.dumps(trace.provenance, sort_keys=True),
    }
    content = _ordered(save(tensors, metadata=metadata))
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


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


def load_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        ArtifactError: missing, cut short, not a trace, of another schema version, or with impossible values.
    """
    remedy = "run the trace stage again (dvc repro)"
    if not path.is_file():
        raise ArtifactError(f"{path}: no such trace; {remedy}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("schema") != SCHEMA:
                raise ArtifactError(f"{path}: schema {metadata.get('schema')!r} is not {SCHEMA!r}; {remedy}")
            missing = set(_TENSORS) - set(file.keys())
            if missing:
                raise ArtifactError(f"{path}: tensors {sorted(missing)} are missing; {remedy}")
            named = [name for name in file.keys() if name.startswith(_CHANNEL)]  # noqa: SIM118 - not a dict
            for name in (*_TENSORS, *named):
                stored = file.get_slice(name).get_dtype()
                if stored not in _NUMBERS:
                    raise ArtifactError(f"{path}: tensor {name!r} holds {stored}, not F32; write it as float32")
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
            whole = float(file.get_tensor("full_layers")) if "full_layers" in file.keys() else None  # noqa: SIM118
            channels = {name.removeprefix(_CHANNEL): file.get_tensor(name) for name in named}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: unreadable or cut short ({error}); {remedy}") from None
    try:
        label_names = tuple(json.loads(metadata.get("label_names", "[]")))
        provenance = json.loads(metadata.get("provenance", "{}"))
    except ValueError as error:
        raise ArtifactError(f"{path}: metadata are not JSON ({error}); {remedy}") from None
    try:
        return Trace(
            kind=metadata.get("kind", ""),
            label_names=label_names,
            provenance=provenance,
            channels=channels,
            full_layers=whole,
            **tensors,
        )
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {str(error).removeprefix('trace: ')}") from None
