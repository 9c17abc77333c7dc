"""Prepare an image task: pixels as .npy files that every trial maps, labels as numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.results import Inputs, Split
from pipeline.tasks.columns import note_unused_drop, read_labels
from pipeline.tasks.content import array_content_hash, data_identity
from pipeline.tasks.image.sources import Images, read_images
from pipeline.tasks.splits import TRAIN, Protocol, choose_rows
from pipeline.tasks.stores import PIXELS
from pipeline.tasks.task import Colours, Task

PARTS = ("images", "labels", "rows")


def prepare_images(
    task: Task, protocol: Protocol, folder: Path, mirror: Path | None
) -> tuple[dict[str, Split], dict[str, Inputs]]:
    """Write pixels/<split>.images.npy, .labels.npy and .rows.npy (position in the source) below `folder`.

    Only chosen rows are decoded. Nothing is reused from an earlier call; all of CIFAR-10 takes 9 s.

    Returns:
        The manifest's entries for the splits and for the pixels.

    Raises:
        DataError: as `pipeline.tasks.prepare.prepare`.
    """
    source = read_images(task, mirror)
    labels = _labels(task, source)
    kept = {split: np.flatnonzero(~np.isnan(values)) for split, values in labels.items()}
    chosen = choose_rows(task.name, {split: len(rows) for split, rows in kept.items()}, task.rows, protocol)
    target = folder / PIXELS
    target.mkdir(parents=True)
    splits = {
        split: _write(task, target, split, source[origin], labels[origin], kept[origin][index])
        for split, (origin, index) in chosen.items()
    }
    arrays = {split: stored_arrays(target, split) for split in splits}
    colours = task.colours or _colours(arrays[TRAIN]["images"])
    inputs = Inputs(
        hash=data_identity(arrays),
        splits={name: split.sha256 for name, split in splits.items()},
        mean=colours.mean,
        std=colours.std,
    )
    return splits, {PIXELS: inputs}


def stored_arrays(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Images, labels and rows of a stored split, mapped from disk."""
    return {part: np.load(folder / f"{split}.{part}.npy", mmap_mode="r") for part in PARTS}


def _labels(task: Task, source: Mapping[str, Images]) -> dict[str, np.ndarray]:
    """Class indices of each split, (n,) float64; NaN for rows to leave out."""
    where = {split: f"{task.name}: split {split!r}" for split in source}
    label_columns = {where[split]: images.labels for split, images in source.items()}
    labels = read_labels(task, label_columns, f"mend the source or tasks.{task.name}.label_names")
    note_unused_drop(task, labels)
    return {split: labels[where[split]] for split in source}


def _write(task: Task, folder: Path, split: str, source: Images, labels: np.ndarray, index: np.ndarray) -> Split:
    arrays = {
        "images": source.pixels(index),
        "labels": labels[index].astype(np.int64),
        "rows": index.astype(np.int64),
    }
    for part in PARTS:
        np.save(folder / f"{split}.{part}.npy", arrays[part], allow_pickle=False)
    counts = np.bincount(arrays["labels"], minlength=len(task.label_names))
    return Split(
        rows=len(index),
        label_counts=dict(zip(task.label_names, counts.tolist(), strict=True)),
        sha256=array_content_hash(arrays),
    )


def _colours(images: np.ndarray) -> Colours:
    """Mean and standard deviation of each colour, rounded to four places like published figures."""
    pixels = images.reshape(-1, images.shape[-1]) / 255.0
    mean, std = (np.round(values, 4) for values in (pixels.mean(axis=0), pixels.std(axis=0)))
    return Colours(tuple(mean.tolist()), tuple(np.maximum(std, 1e-4).tolist()))
