"""Sources of images: the demo's generator, the hub, its mirror, torchvision's folders, tables, a folder per class.

Each gives the labels of all rows, and the pixels of chosen rows.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import DataError, listed, shown
from pipeline.tasks.columns import column, labels_of
from pipeline.tasks.files import read_file
from pipeline.tasks.sources import demo_sizes, label_column, load_hub
from pipeline.tasks.task import DemoSource, FileSource, HubSource, Task
from pipeline.tasks.words import IMAGE_LABELS

SIZE = 32
"""Height and width of a stored image, as the residual networks for CIFAR need."""
FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True)
class Images:
    """A split of the source: all labels (n,), and pixels of chosen rows, (k,) to (k, 32, 32, 3) uint8."""

    labels: Sequence[Any]
    pixels: Callable[[np.ndarray], np.ndarray]


def read_images(task: Task, mirror: Path | None) -> dict[str, Images]:
    """ "train" and the report splits of a task, whole.

    A hub source is read from the mirror's `datasets/...`, else (CIFAR) from the folders of torchvision.datasets in the
    mirror's `torchvision/`; without a mirror, from the hub. Images of files of another size are cropped to their middle
    square and scaled to 32x32.

    Raises:
        DataError: a missing source, column, file or folder, or neither network nor mirror.
    """
    source = task.source
    if isinstance(source, DemoSource):
        return _generate(task)
    if isinstance(source, FileSource):
        paths = {"train": source.train, **source.report}
        return {split: _from_path(task, path, source.quoted) for split, path in paths.items()}
    return _from_hub(task, source, mirror)


def _generate(task: Task) -> dict[str, Images]:
    from pipeline.tasks.demo.images import images

    out = {}
    for offset, (split, size) in enumerate(zip(("train", "test"), demo_sizes(task.rows), strict=True)):
        generated = images(size, seed=2 * task.rows.seed + offset)
        out[split] = Images([IMAGE_LABELS[label] for label in generated["label"]], generated["image"].__getitem__)
    return out


def _from_hub(task: Task, source: HubSource, mirror: Path | None) -> dict[str, Images]:
    if task.torchvision and mirror is not None and not (mirror / "datasets" / source.hub).is_dir():
        unpacked = mirror / "torchvision" / task.torchvision[1]
        if unpacked.is_dir():
            return _read_torchvision(task, task.torchvision[0], unpacked)
    names = {"train": source.train, **source.report}
    tables = load_hub(source, mirror, list(names.values()))
    return {split: _from_table(task, f"{task.name}: split {split!r}", tables[name]) for split, name in names.items()}


def _read_torchvision(task: Task, kind: str, unpacked: Path) -> dict[str, Images]:
    """CIFAR from torchvision's folders, checked by its checksums; never downloads."""
    import torchvision

    out = {}
    for split in ("train", "test"):
        try:
            data = getattr(torchvision.datasets, kind)(str(unpacked.parent), train=split == "train")
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{task.name}: {unpacked} is not readable as torchvision's {kind} ({reason}); download it again"
            ) from None
        out[split] = Images([data.classes[label] for label in data.targets], data.data.__getitem__)
    return out


def _from_path(task: Task, path: Path, quoted: bool | None) -> Images:
    """Images of a folder per class, or of a table with a column of paths (relative to its folder) or of bytes."""
    if path.is_dir():
        return _from_folders(task, path)
    table = read_file(path, (task.image or "", task.label), quoted, label_column(task))
    return _from_table(task, f"tasks.{task.name}: {path}", table, beside=path.parent)


def _from_folders(task: Task, folder: Path) -> Images:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if set(classes) != set(task.label_names):
        raise DataError(
            f"tasks.{task.name}: {folder} holds the folders {listed(classes) or 'none'}, not one for each of "
            f"{listed(task.label_names)}; mend label_names or the folders"
        )
    every = [(name, path) for name in classes for path in sorted((folder / name).iterdir())]
    files = [(name, path) for name, path in every if path.suffix.lower() in FORMATS]
    others = [path.name for _, path in every if path.suffix.lower() not in FORMATS and not path.name.startswith(".")]
    if others:
        print(
            f"tasks.{task.name}: {folder}: {len(others)} files are left out, such as {shown(others[0])}; images are "
            f"{', '.join(FORMATS)}",
            flush=True,
        )
    return Images([name for name, _ in files], lambda index: _stacked([files[i][1] for i in index], _scaled_file))


def _from_table(task: Task, where: str, table: pa.Table, beside: Path | None = None) -> Images:
    remedy = f"mend tasks.{task.name}.image or .label, or the source"
    images = column(table, task.image or "", where, remedy)
    labels = labels_of(task, table, where, remedy)

    def pixels(index: np.ndarray) -> np.ndarray:
        values = images.take(pa.array(index)).to_pylist()
        rows = [(f"{where}, row {row}", value) for row, value in zip(index, values, strict=True)]
        return _stacked(rows, lambda row: _cell(row[0], row[1], beside, task.colours is None))

    return Images(labels, pixels)


def _stacked(rows: Sequence[Any], read: Callable[[Any], np.ndarray]) -> np.ndarray:
    out = np.empty((len(rows), SIZE, SIZE, 3), dtype=np.uint8)
    for at, row in enumerate(rows):
        out[at] = read(row)
    return out


def _cell(where: str, value: Any, beside: Path | None, scaled: bool) -> np.ndarray:
    """The image of a table's cell: the hub's {"bytes"}, bytes, or a path relative to the table's folder."""
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(content, str) and beside is not None:
        return _scaled_file(_file(where, beside, content))
    if not content or not isinstance(content, bytes):
        raise DataError(f"{where}: no image bytes; store the images in the parquet files, or give paths of files")
    pixels = _decode(where, io.BytesIO(content), scaled)
    if pixels.shape != (SIZE, SIZE, 3):
        raise DataError(
            f"{where}: image of {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIZE}x{SIZE}; mend the row"
        )
    return pixels


def _file(where: str, folder: Path, name: str) -> Path:
    try:
        if (folder / name).is_file():
            return folder / name
    except OSError:  # a long text is no file's name
        pass
    raise DataError(f"{where}: no such image file as {shown(name)}; give paths relative to the table's folder")


def _scaled_file(path: Path) -> np.ndarray:
    return _decode(str(path), path, scaled=True)


def _decode(where: str, source: Any, scaled: bool) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(source) as opened:
            mode = opened.mode
            # Pillow's own conversion of 16 bits makes all from 255 on white.
            deep = np.asarray(opened, np.uint16) >> 8 if mode.startswith("I;16") else None
            image = (opened if deep is None else Image.fromarray(deep.astype(np.uint8))).convert("RGB")
    except Exception as error:  # PIL raises many kinds
        reason = "of no known format" if isinstance(error, UnidentifiedImageError) else f"{str(error)[:200]}"
        raise DataError(f"{where}: not readable as an image ({reason}); mend the row") from None
    if mode in ("I", "F"):
        raise DataError(f"{where}: its pixels are numbers of 32 bits, of no known range; save it with 8 bits a colour")
    if scaled and image.size != (SIZE, SIZE):
        image = ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image)
