"""Where images come from: generated, the hub, its mirror, or torchvision's own folders. All give labels and pixels."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.tasks.task import HubSource, Rows

REPORT = "test"
SIZE = 32


@dataclass(frozen=True)
class ImageSet:
    """A data set of 32x32 colour images.

    Attributes:
        hub, label: name on the hub and its column of labels; None for the generated one.
        torchvision: class of torchvision.datasets, and the folder that it unpacks to.
        mean, std: of the training pixels by colour, scale 0..1.
    """

    name: str
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    hub: str | None = None
    label: str = "label"
    torchvision: tuple[str, str] = ("", "")
    label_names: tuple[str, ...] = ()


_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGE_SETS: dict[str, ImageSet] = {
    known.name: known
    for known in (
        ImageSet("demo-images", 10, (0.31, 0.31, 0.31), (0.27, 0.27, 0.27)),
        ImageSet(
            "cifar10",
            10,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            hub="uoft-cs/cifar10",
            torchvision=("CIFAR10", "cifar-10-batches-py"),
            label_names=_CIFAR10,
        ),
        ImageSet(
            "cifar100",
            100,
            (0.5071, 0.4865, 0.4409),
            (0.2673, 0.2564, 0.2762),
            hub="uoft-cs/cifar100",
            label="fine_label",
            torchvision=("CIFAR100", "cifar-100-python"),
        ),
    )
}


@dataclass(frozen=True)
class Split:
    """A split of the source: all labels (n,), and pixels of chosen rows, (k,) to (k, 32, 32, 3) uint8."""

    labels: np.ndarray
    pixels: Callable[[np.ndarray], np.ndarray]


def read_source(known: ImageSet, rows: Rows, mirror: Path | None) -> dict[str, Split]:
    """The train and test splits of a data set, whole.

    demo-images are generated, as many as `rows` needs. The others come from the mirror's `datasets/uoft-cs/...`; where
    it has none, from the mirror's `torchvision/` with the folders that torchvision.datasets unpacks; without a mirror
    from the hub.

    Raises:
        DataError: no such data set, no column of that name, or neither network nor mirror.
    """
    return _generate(rows) if known.hub is None else _from_hub(known, mirror)


def label_names(known: ImageSet) -> tuple[str, ...]:
    """Names of the classes; none where they are not known here (CIFAR-100)."""
    if known.hub is not None:
        return known.label_names
    from pipeline.tasks.demo.images import IMAGE_LABELS

    return IMAGE_LABELS


def _generate(rows: Rows) -> dict[str, Split]:
    from pipeline.tasks.demo.images import images

    # Generated train rows cover the selection rows that are carved out of them.
    sizes = {"train": (rows.train or 3000) + (rows.selection or 0), REPORT: rows.report or 600}
    out = {}
    for offset, (split, size) in enumerate(sizes.items()):
        made = images(size, seed=2 * rows.seed + offset)
        out[split] = Split(made["label"], made["image"].__getitem__)
    return out


def _from_hub(known: ImageSet, mirror: Path | None) -> dict[str, Split]:
    assert known.hub is not None
    if mirror is not None and not (mirror / "datasets" / known.hub).is_dir():
        unpacked = mirror / "torchvision" / known.torchvision[1]
        if unpacked.is_dir():
            return _read_torchvision(known, unpacked)
    from pipeline.tasks.sources import load_hub

    tables = load_hub(HubSource(hub=known.hub, report={REPORT: REPORT}), mirror, ["train", REPORT])
    return {split: _from_table(known, split, table) for split, table in tables.items()}


def _read_torchvision(known: ImageSet, unpacked: Path) -> dict[str, Split]:
    """Torchvision's own data set, checked by its checksums; never downloaded here."""
    import torchvision

    out = {}
    for split in ("train", REPORT):
        try:
            data = getattr(torchvision.datasets, known.torchvision[0])(str(unpacked.parent), train=split == "train")
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{known.name}: {unpacked} is not readable as torchvision's "
                f"{known.torchvision[0]} ({reason}); download it again"
            ) from None
        out[split] = Split(np.asarray(data.targets), data.data.__getitem__)
    return out


def _from_table(known: ImageSet, split: str, table: Any) -> Split:
    for column in ("img", known.label):
        if column not in table.column_names:
            raise DataError(
                f"{known.name}: split {split!r} of {known.hub} has no column {column!r} "
                f"(it has {', '.join(table.column_names)}); mend the mirror"
            )

    def pixels(index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), SIZE, SIZE, 3), dtype=np.uint8)
        for at, (row, image) in enumerate(zip(index, table["img"].take(index).to_pylist(), strict=True)):
            out[at] = _decode(f"{known.name}: split {split!r}, row {row}", image)
        return out

    return Split(table[known.label].to_numpy(), pixels)


def _decode(where: str, image: dict[str, Any] | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if not image or not image.get("bytes"):
        raise DataError(f"{where}: no image bytes; store the images inside the parquet files")
    try:
        with Image.open(io.BytesIO(image["bytes"])) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{where}: not readable as an image ({error}); mend the row") from None
    if pixels.shape != (SIZE, SIZE, 3):
        raise DataError(
            f"{where}: image of {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIZE}x{SIZE}; mend the row"
        )
    return pixels
