"""Freeze an image data set: splits, pixels as .npy that every trial maps, and a manifest that says what is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.storage import file_hash, whole_folder, write_json
from pipeline.tasks.image.sources import IMAGE_SETS, REPORT, ImageSet, Split, label_names, read_source
from pipeline.tasks.task import Rows

IMAGES = Path("data/images")
"""One folder per prepared data set."""
SCHEMA = 1
SELECTION = "selection"


def prepare_images(
    name: str, rows: Rows, protocol: Literal["holdout", "paper"], folder: Path, mirror: Path | None
) -> dict[str, Any]:
    """Write `folder` anew: <split>.images.npy, .labels.npy and .rows.npy (position in the source), manifest.json.

    All of CIFAR-10 takes 9 s, so nothing is reused from an earlier call and nothing can be stale; only the rows that
    are asked for are decoded. Written beside the target and moved there at the end.

    Returns:
        The manifest. Its `hash` covers the train and selection rows, which are all that a trial learns from.

    Raises:
        DataError: unreadable source, missing column, label outside the label set, image of another size, empty split.
    """
    known = IMAGE_SETS[name]
    source = read_source(known, rows, mirror)
    chosen = split_rows(name, len(source["train"].labels), len(source[REPORT].labels), rows, protocol)
    with whole_folder(folder) as partial:
        splits = {
            split: _write(known, partial, split, source[origin], index) for split, (origin, index) in chosen.items()
        }
        manifest = _manifest(known, splits, protocol, partial)
        write_json(partial / "manifest.json", manifest)
    return manifest


def _manifest(known: ImageSet, splits: Mapping[str, Any], protocol: str, folder: Path) -> dict[str, Any]:
    trained = [folder / f"{split}.{part}.npy" for split in ("train", SELECTION) for part in ("images", "labels")]
    return {
        "schema": SCHEMA,
        "dataset": known.name,
        "kind": "classification",
        "classes": known.classes,
        "label_names": list(label_names(known)),
        "protocol": protocol,
        "report_splits": [REPORT],
        "splits": splits,
        "hash": file_hash(*trained),
    }


def split_rows(
    name: str, train: int, report: int, rows: Rows, protocol: Literal["holdout", "paper"]
) -> dict[str, tuple[str, np.ndarray]]:
    """Which source rows go where: our split to (source split, ascending positions). As for text: holdout carves the
    selection rows from the training split; paper selects on the report rows themselves.

    Raises:
        DataError: no training rows are left.
    """
    generator = np.random.default_rng(rows.seed)
    order = generator.permutation(train)
    reported = np.arange(report)
    if rows.report is not None and rows.report < report:
        reported = np.sort(generator.choice(report, rows.report, replace=False))
    if protocol == "paper":
        selection, rest = (REPORT, reported), order
    else:
        wanted = rows.selection or min(train // 10, 2000)
        if wanted >= train:
            raise DataError(
                f"{name}: {train} training rows leave none beside {wanted} selection rows; lower cifar.rows.selection"
            )
        selection, rest = ("train", np.sort(order[:wanted])), order[wanted:]
    return {"train": ("train", np.sort(rest[: rows.train])), SELECTION: selection, REPORT: (REPORT, reported)}


def _write(known: ImageSet, folder: Path, split: str, source: Split, index: np.ndarray) -> dict[str, Any]:
    labels = source.labels[index].astype(np.int64)
    if len(labels) == 0:
        raise DataError(f"{known.name}: split {split!r} is empty; check the source and cifar.rows")
    if labels.min() < 0 or labels.max() >= known.classes:
        row = int(index[np.argmax((labels < 0) | (labels >= known.classes))])
        raise DataError(
            f"{known.name}: split {split!r}, row {row}: label {int(source.labels[row])} is not in "
            f"0..{known.classes - 1}; mend the source"
        )
    arrays = {"images": source.pixels(index), "labels": labels, "rows": index.astype(np.int64)}
    for part, array in arrays.items():
        np.save(folder / f"{split}.{part}.npy", array, allow_pickle=False)
    return {
        "rows": len(labels),
        "label_counts": np.bincount(labels, minlength=known.classes).tolist(),
        "sha256": file_hash(*(folder / f"{split}.{part}.npy" for part in arrays)),
    }
