"""The state of a trial between two epochs: tensors as safetensors, and a JSON file that names and hashes them.

Nothing is unpickled. The JSON file is replaced last, so it always names a whole state; where a hash differs, the state
counts as none.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.storage import file_hash, whole_file, write_json
from pipeline.training.plan import RESUME, WEIGHTS, remove_state

SCHEMA = 1
History = list[dict[str, float]]


@dataclass(frozen=True)
class State:
    """A trial after some epochs.

    Attributes:
        model, optimizer: as their `load_state_dict` takes them.
        history: metrics of each epoch.
        best: SHA-256 of the best epoch's stored model; None where the last epoch is the best.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    history: History
    best: str | None


def save_state(directory: Path, state: State) -> None:
    """Write a trial's state, and remove the one before."""
    tensors = {f"model.{name}": value for name, value in state.model.items()} | dict(_tensors_of(state.optimizer))
    file = directory / f"resume-{len(state.history)}.safetensors"
    with whole_file(file) as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial)
    payload = {
        "schema": SCHEMA,
        "file": file.name,
        "sha256": file_hash(file),
        "groups": state.optimizer["param_groups"],
        "numbers": [[i, n, v] for i, n, v in _entries(state.optimizer) if not isinstance(v, Tensor)],
        "history": json.dumps(state.history),  # as text, since a score may be NaN
        "best": state.best,
    }
    write_json(directory / RESUME, payload)
    remove_state(directory, keep=(RESUME, file.name))


def load_state(directory: Path) -> State | None:
    """Read a trial's state; None where there is none, or where it, or the best epoch's model, is damaged."""
    try:
        payload = json.loads((directory / RESUME).read_text(encoding="utf-8"))
        file, best = directory / payload["file"], payload["best"]
        if payload["schema"] != SCHEMA or file.parent != directory or file_hash(file) != payload["sha256"]:
            return None
        if best is not None and file_hash(directory / WEIGHTS) != best:
            return None
        tensors = load_file(file)
        optimizer: dict[int, dict[str, Any]] = {}
        for index, name, value in payload["numbers"]:
            optimizer.setdefault(index, {})[name] = value
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, entry = name.split(".", 2)
                optimizer.setdefault(int(index), {})[entry] = value
        return State(
            model={name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")},
            optimizer={"state": optimizer, "param_groups": [_group(group) for group in payload["groups"]]},
            history=json.loads(payload["history"]),
            best=best,
        )
    except Exception:  # any damage: starting over is right
        return None


def _entries(optimizer: Mapping[str, Any]) -> Iterator[tuple[int, str, Any]]:
    for index, entry in optimizer["state"].items():
        for name, value in entry.items():
            yield index, name, value


def _tensors_of(optimizer: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for index, name, value in _entries(optimizer):
        if isinstance(value, Tensor):
            yield f"optimizer.{index}.{name}", value


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group, with the pairs that JSON has as lists."""
    return {
        name: tuple(value) if name != "params" and isinstance(value, list) else value for name, value in group.items()
    }
