"""Stored images: mapped from disk on the CPU, held on a GPU, and augmented on their device."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ArtifactError

PADDING = 4
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class ImageStore:
    """One split's images.

    Attributes:
        images: (n, h, w, 3) uint8, on the device; on the CPU a mapped file that trials share.
        labels: (n,) float64.
        row_ids: (n,) int64.
    """

    images: Tensor
    labels: np.ndarray
    row_ids: np.ndarray

    @classmethod
    def open(cls, folder: Path, split: str, device: str) -> "ImageStore":
        """Map a split of a prepared task.

        Raises:
            ArtifactError: missing or cut short.
        """
        try:
            # Mode "c" maps copy-on-write, since Torch requires a writable array; nothing writes to it.
            parts = [np.load(folder / f"{split}.{p}.npy", mmap_mode="c") for p in ("images", "labels", "rows")]
        except (OSError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ArtifactError(
                f"{folder}: no readable {split} images ({reason}); run `dvc repro -f prepare`"
            ) from None
        images, labels, rows = parts
        return cls(torch.from_numpy(images).to(device), np.asarray(labels, dtype=np.float64), np.asarray(rows))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:
        """Pixels along a side of each image, (n,), which determine its FLOPs; all are equal."""
        return np.full(len(self), self.images.shape[1])

    def batch(self, rows: np.ndarray, device: Any = None) -> dict[str, Tensor]:
        """Inputs of some rows, on the store's device."""
        return {"image": self.images[torch.from_numpy(np.asarray(rows)).to(self.images.device)]}

    def in_order(self) -> Iterator[np.ndarray]:
        """All rows in batches for evaluation."""
        return self.timed(np.arange(len(self)), EVALUATION_BATCH)

    def timed(self, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Some rows in batches for timing."""
        return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))

    def epoch(
        self, batch_size: int, generator: np.random.Generator, device: Any = None, augment: bool = False
    ) -> Iterator[tuple[dict[str, Tensor], np.ndarray]]:
        """A shuffled epoch: inputs with their rows. All randomness comes from `generator`, so that CPU and GPU see the
        same images."""
        order = generator.permutation(len(self))
        for rows in self.timed(order, batch_size):
            inputs = self.batch(rows)
            yield ({"image": crop_and_flip(inputs["image"], generator)} if augment else inputs), rows


def crop_and_flip(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Pad each image by 4 black pixels, crop 32x32 at a random place, and mirror half of them (He et al. 2016, 4.2).

    One gather replaces torchvision.transforms.v2, whose RandomCrop and RandomHorizontalFlip draw once per call: a batch
    would share one crop and one flip, and a call per image costs more than a training step on a GPU. It also avoids the
    import of torchvision in each worker. A test compares the results with v2's pad, crop and flip.

    Args:
        images: (n, h, w, 3) uint8.
    """
    n, height, width, _ = images.shape
    corner = generator.integers(0, 2 * PADDING + 1, size=(2, n))
    mirrored = generator.random(n) < 0.5
    rows = corner[0][:, None] + np.arange(height)
    across = np.where(mirrored[:, None], np.arange(width)[::-1], np.arange(width))
    columns = corner[1][:, None] + across
    padded = torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    flat = padded.view(-1, 3)  # one row per pixel: a row gather is faster than three index tensors
    base = np.arange(n)[:, None, None] * (padded.shape[1] * padded.shape[2])
    index = base + rows[:, :, None] * padded.shape[2] + columns[:, None, :]
    return flat[torch.from_numpy(index.reshape(-1)).to(images.device)].view(images.shape)
