"""Prepare a task: splits as files that every trial maps, and their manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.results import Inputs, Manifest, Split
from pipeline.storage import whole_folder
from pipeline.tasks.splits import SELECTION, TRAIN, Protocol
from pipeline.tasks.task import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def prepare(
    task: Task,
    tokenizers: Mapping[str, "Tokenizer"],
    protocol: Protocol,
    folder: Path,
    mirror: Path | None,
    files: Mapping[str, str],
) -> Manifest:
    """Write `folder` with all splits; it is replaced when complete, so that a failure leaves the old one.

    Texts: text/<split>.parquet, <backbone>/<split>.arrow and tokenizer.json. Images: pixels/<split>.*.npy. Both:
    manifest.json.

    Args:
        tokenizers: name of each text backbone to its tokenizer; empty for images.
        files: SHA-256 of the local files that are read, by their roles, for the manifest.

    Returns:
        The manifest.

    Raises:
        DataError: unreadable source, missing column, empty split, label outside the label set, unreadable image.
    """
    with whole_folder(folder) as partial:
        if task.modality == "text":
            from pipeline.tasks.text.prepare import prepare_texts

            splits, inputs = prepare_texts(task, tokenizers, protocol, partial, mirror)
        else:
            from pipeline.tasks.image.prepare import prepare_images

            splits, inputs = prepare_images(task, protocol, partial, mirror)
        manifest = _manifest(task, protocol, splits, inputs, files)
        manifest.write(partial / "manifest.json")
    return manifest


def _manifest(
    task: Task,
    protocol: Protocol,
    splits: Mapping[str, Split],
    inputs: Mapping[str, Inputs],
    files: Mapping[str, str],
) -> Manifest:
    return Manifest(
        task=task.name,
        modality=task.modality,
        kind=task.kind,
        protocol=protocol,
        columns=task.columns,
        label_names=task.label_names,
        metrics=task.metrics,
        source=json.loads(task.source.model_dump_json()),
        files=dict(files),
        report_splits=tuple(name for name in splits if name not in (TRAIN, SELECTION, *task.unlabelled)),
        unlabelled_splits=tuple(task.unlabelled),
        splits=dict(splits),
        inputs=dict(inputs),
    )
