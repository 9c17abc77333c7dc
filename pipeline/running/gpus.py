"""The share of a GPU that a trial gets, by the memory that trials of its kind were seen to need."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.storage import claimed, content_key, write_json

MARGIN = 1.25
"""What is given of what was seen: the longest rows of another epoch may meet in one batch."""
KIND = ("modality", "kind", "outputs", "data", "backbone", "method")
"""Settings that, with the batch size, decide how much memory a trial needs."""


@dataclass(frozen=True)
class Gpu:
    """The GPUs of one kind in a cluster.

    Attributes:
        kind: Ray's name of it, such as "H100"; "" where Ray has none.
        gib: memory of one.
        count: how many there are.
    """

    kind: str
    gib: float
    count: float


def share_of_gpu(gib: float, each: float) -> float:
    """The share that lets as many trials of `each` GiB onto a GPU of `gib` as fit; at least one.

    Rounded down to the four decimals that Ray counts in, so that the shares never exceed the whole.

    >>> share_of_gpu(80.0, 12.0), share_of_gpu(24.0, 8.0), share_of_gpu(8.0, 12.0)
    (0.1666, 0.3333, 1.0)
    """
    fit = max(1, int(gib // each))
    return int(10_000 / fit) / 10_000


class Memory:
    """Memory that trials were seen to need, by backbone, method, data and batch size; kept in a file.

    Args:
        path: the file; one that is damaged counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = self._read()
        """Kind of trial to batch size to the most GiB, CUDA's own among them."""

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return {kind: {str(int(n)): float(v) for n, v in by.items()} for kind, by in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def see(self, settings: Mapping[str, Any], gib: float) -> None:
        """A trial needed so many GiB in the epochs so far."""
        kind, size = _kind(settings), str(settings["batch_size"])
        if gib > self.seen.get(kind, {}).get(size, 0.0):
            with claimed(self.path.parent / "locks", self.path.stem):  # other drivers saw other trials meanwhile
                self.seen |= self._read()
                by_size = self.seen.setdefault(kind, {})
                by_size[size] = max(round(gib, 3), by_size.get(size, 0.0))
                write_json(self.path, self.seen)

    def need(self, settings: Mapping[str, Any], unknown: float) -> float:
        """GiB to give a trial: by what its kind needed at this batch size or the next larger one; else `unknown`."""
        by_size = self.seen.get(_kind(settings), {})
        sizes = [size for size in map(int, by_size) if size >= settings["batch_size"]]
        return by_size[str(min(sizes))] * MARGIN if sizes else unknown


def _kind(settings: Mapping[str, Any]) -> str:
    return content_key({name: settings.get(name) for name in KIND})


def place(need: float, gpus: Sequence[Gpu], used: Mapping[str, float]) -> tuple[Gpu, float]:
    """The kind of GPU for a trial, and the share of one: where most such trials still fit.

    Args:
        need: GiB of the trial.
        gpus: at least one kind.
        used: kind to the number of its GPUs that other trials have; the sum of their shares.

    >>> old, new = Gpu("T4", 16.0, 2), Gpu("H100", 80.0, 1)
    >>> place(8.0, [old, new], {}), place(8.0, [old, new], {"H100": 0.9}), place(30.0, [old, new], {"H100": 1.0})
    ((Gpu(kind='H100', gib=80.0, count=1), 0.1), (Gpu(kind='T4', gib=16.0, count=2), 0.5), \
(Gpu(kind='H100', gib=80.0, count=1), 0.5))
    """
    fitting = [gpu for gpu in gpus if gpu.gib >= need] or [max(gpus, key=lambda gpu: gpu.gib)]
    shares = {gpu: share_of_gpu(gpu.gib, need) for gpu in fitting}
    best = max(fitting, key=lambda gpu: (gpu.count - used.get(gpu.kind, 0.0)) / shares[gpu])
    return best, shares[best]
