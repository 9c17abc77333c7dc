"""Stored tokens: memory-mapped by every trial, and padded to the longest row of a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

EVALUATION_BATCH = 64


def load_tokenizer(path: Path) -> "Tokenizer":
    """Read a stored tokenizer.json; it truncates to the task's `max_length` and does not pad."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise ArtifactError(f"{path}: no such tokenizer; run `dvc repro`")
    return Tokenizer.from_file(str(path))


@dataclass(frozen=True)
class TokenStore:
    """One split's tokens, memory-mapped.

    Attributes:
        ids, types: flat token and segment ids, (total tokens,).
        offsets: row i is [offsets[i], offsets[i+1]), (n + 1,).
        labels: (n,) float64.
        row_ids: (n,) int64.
    """

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    row_ids: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "TokenStore":
        """Map <split>.arrow.

        Raises:
            ArtifactError: missing or cut short.
        """
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
            ids, types = table["input_ids"].chunk(0), table["token_type_ids"].chunk(0)
            return cls(
                ids=ids.values.to_numpy(),
                types=types.values.to_numpy(),
                offsets=ids.offsets.to_numpy(),
                labels=table["label"].to_numpy(),
                row_ids=table["row_id"].to_numpy(),
            )
        except (pa.ArrowException, OSError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ArtifactError(f"{path}: no readable tokens ({reason}); run `dvc repro -f prepare`") from None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per row, (n,)."""
        return np.diff(self.offsets)

    def batch(self, rows: Sequence[int] | np.ndarray, device: Any) -> dict[str, "Tensor"]:
        """Inputs of some rows, padded to the longest of them."""
        spans = [slice(self.offsets[i], self.offsets[i + 1]) for i in rows]
        return collate([self.ids[s] for s in spans], [self.types[s] for s in spans], device)

    @property
    def sizes(self) -> np.ndarray:
        """Tokens per row, (n,), which determine its FLOPs."""
        return self.lengths

    def in_order(self) -> Iterator[np.ndarray]:
        """All rows in batches of similar length, for evaluation."""
        return by_length(self.lengths, EVALUATION_BATCH)

    def timed(self, rows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
        """Some rows in batches of similar length, for timing."""
        return (rows[part] for part in by_length(self.lengths[rows], batch_size))

    def epoch(
        self, batch_size: int, generator: np.random.Generator, device: Any, augment: bool = False
    ) -> Iterator[tuple[dict[str, "Tensor"], np.ndarray]]:
        """A shuffled epoch: inputs on the device with their rows; texts have no augmentation."""
        for rows in bucketed(self.lengths, batch_size, generator):
            yield self.batch(rows, device), rows


def collate(ids: Sequence[Any], types: Sequence[Any], device: Any) -> dict[str, "Tensor"]:
    """Pad to the longest: input_ids and token_type_ids (n, tokens), and keep (bool) if anything was padded."""
    import torch

    lengths = np.array([len(row) for row in ids])
    shape = (len(ids), int(lengths.max()))
    tokens, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, (row, kinds) in enumerate(zip(ids, types, strict=True)):
        tokens[i, : len(row)] = row
        segments[i, : len(row)] = kinds
    batch = {"input_ids": torch.from_numpy(tokens), "token_type_ids": torch.from_numpy(segments)}
    if (lengths < shape[1]).any():
        batch["keep"] = torch.from_numpy(np.arange(shape[1])[None, :] < lengths[:, None])
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def bucketed(lengths: np.ndarray, batch_size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """A shuffled epoch in batches of similar length: rows are sorted by length within pools of 50 batches only, so
    that batches stay random enough for training."""
    order = generator.permutation(len(lengths))
    pool = 50 * batch_size
    batches = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    for i in generator.permutation(len(batches)):
        yield batches[i]


def by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """All rows in batches of similar length, in a fixed order; for evaluation."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def in_buckets(lengths: np.ndarray, batch_size: int, least: int = 8) -> Iterator[np.ndarray]:
    """All rows in batches that end where the length changes, so that most need no padding.

    Args:
        least: a batch with fewer rows also takes longer rows; padding costs less than a call for two rows.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    for i in range(1, len(order) + 1):
        full = i - start >= batch_size
        changes = i < len(order) and lengths[order[i]] != lengths[order[i - 1]]
        if i == len(order) or full or (changes and i - start >= least and len(order) - i >= least):
            yield order[start:i]
            start = i
