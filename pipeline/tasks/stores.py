"""Prepared splits behind one protocol, which training, recording and timing use for texts and images."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.results import Manifest

if TYPE_CHECKING:
    from torch import Tensor


class Store(Protocol):
    """One split's rows with their labels, mapped from disk."""

    @property
    def labels(self) -> np.ndarray:
        """Class index or real value, (n,) float64; NaN without a label."""

    @property
    def row_ids(self) -> np.ndarray:
        """Positions in the source, (n,) int64."""

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each row, or pixels along its side, (n,), which determine its FLOPs."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, device: Any) -> "dict[str, Tensor]":
        """Inputs of some rows, on the device."""

    def in_order(self) -> Iterator[np.ndarray]:
        """All rows in batches for evaluation, in a fixed order."""

    def timed(self, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Some rows in batches for timing, in a fixed order."""

    def epoch(
        self, batch_size: int, generator: np.random.Generator, device: Any, augment: bool = False
    ) -> "Iterator[tuple[dict[str, Tensor], np.ndarray]]":
        """A shuffled epoch: inputs on the device with their rows, a pure function of the generator."""


def manifest_of(task: str) -> Manifest:
    """The task's manifest, as prepare wrote it."""
    return Manifest.read(HERE.manifest(task), f"run `dvc repro prepare@{task}`")


def open_store(manifest: Manifest, backbone: str, split: str, device: str) -> Store:
    """Map a prepared split.

    Args:
        backbone: name of the backbone, which selects the tokens; images are the same for all.

    Raises:
        ArtifactError: missing or cut short.
    """
    if manifest.modality == "text":
        from pipeline.tasks.text.tokens import TokenStore

        return TokenStore.open(HERE.tokens(manifest.task, backbone, split))
    from pipeline.tasks.image.pixels import ImageStore

    return ImageStore.open(HERE.pixels(manifest.task), split, device)


def files_of(manifest: Manifest, backbone: str, splits: Iterable[str]) -> list[Path]:
    """The files that `manifest_of` and `open_store` read for a backbone and some splits."""
    task = manifest.task
    if manifest.modality == "text":
        stores = [HERE.tokens(task, backbone, split) for split in splits]
    else:
        stores = [
            HERE.pixels(task) / f"{split}.{part}.npy" for split in splits for part in ("images", "labels", "rows")
        ]
    return [HERE.manifest(task), *stores]


def inputs_hash(manifest: Manifest, backbone: str, split: str) -> str:
    """Hash of a split's inputs for a backbone.

    Raises:
        ArtifactError: the task was not prepared for the backbone, or has no such split.
    """
    inputs = manifest.inputs.get(inputs_name(manifest, backbone))
    if inputs is None or split not in inputs.splits:
        raise ArtifactError(
            f"{HERE.manifest(manifest.task)}: no split {split!r} for backbone {backbone!r}; run `dvc repro "
            f"prepare@{manifest.task}`"
        )
    return inputs.splits[split]


def inputs_name(manifest: Manifest, backbone: str) -> str:
    """Key of a backbone's inputs in the manifest."""
    return backbone if manifest.modality == "text" else PIXELS


PIXELS = "pixels"
