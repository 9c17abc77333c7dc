"""Stored images: mapped from disk on the CPU, held whole on a GPU, augmented where they lie."""

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
            # Mode "c" maps copy-on-write: Torch wants a writable array, and nothing here writes to it.
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
        """Pixels along a side of each row, (n,): what a row's FLOPs hang on; all are alike."""
        return np.full(len(self), self.images.shape[1])

    def batch(self, rows: np.ndarray, device: Any = None) -> dict[str, Tensor]:
        """Inputs of the given rows, on the device where the store lies."""
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
        """A shuffled epoch: inputs and the rows that they are. All randomness comes from `generator`, so that a GPU
        sees what a CPU would."""
        order = generator.permutation(len(self))
        for rows in self.timed(order, batch_size):
            inputs = self.batch(rows)
            yield ({"image": crop_and_flip(inputs["image"], generator)} if augment else inputs), rows


def crop_and_flip(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Pad by 4 black pixels, cut 32x32 at a random place, mirror half of them (He et al. 2016, 4.2), each image on its
    own account.

    One gather instead of torchvision.transforms.v2: v2.RandomCrop and RandomHorizontalFlip draw once per call, so a
    batch would share one crop and one flip, and a call per image costs more than the training step on a GPU. It also
    saves every worker torchvision's import. A test holds that the results are those of v2's own pad, crop and flip.

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
    flat = padded.view(-1, 3)  # one row per pixel: a plain row gather is faster than three index tensors
    base = np.arange(n)[:, None, None] * (padded.shape[1] * padded.shape[2])
    index = base + rows[:, :, None] * padded.shape[2] + columns[:, None, :]
    return flat[torch.from_numpy(index.reshape(-1)).to(images.device)].view(images.shape)
