"""Freeze a task: splits, labels as numbers, tokens as Arrow, and a manifest that says what is there."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pipeline.errors import DataError
from pipeline.models.names import BackboneSpec
from pipeline.storage import file_hash, whole_folder, write_json
from pipeline.tasks.columns import column, read_labels, texts_of
from pipeline.tasks.sources import load_splits
from pipeline.tasks.task import Task
from pipeline.tasks.text.tokenize import save_tokens

SCHEMA = 1
SELECTION = "selection"


def prepare(
    task: Task,
    backbones: list[BackboneSpec],
    protocol: Literal["holdout", "paper"],
    folder: Path,
    mirror: Path | None,
) -> dict[str, Any]:
    """Write `folder` anew: text/<split>.parquet, <backbone>/<split>.arrow and tokenizer.json, manifest.json.

    Written beside the target and moved there at the end, so that a failure leaves nothing half-written.

    Returns:
        The manifest.

    Raises:
        DataError: unreadable source, missing column, empty split, label outside the label set, no tokenizer.
        ParamsError: inputs longer than a backbone takes.
    """
    splits = freeze_splits(task, protocol, mirror)
    with whole_folder(folder) as partial:
        (partial / "text").mkdir()
        for name, table in splits.items():
            pyarrow.parquet.write_table(table, partial / "text" / f"{name}.parquet")
        manifest = _manifest(task, splits, partial) | {"protocol": protocol}
        manifest["tokens"] = {s.name: save_tokens(task, s, splits, partial / s.name, mirror) for s in backbones}
        write_json(partial / "manifest.json", manifest)
    return manifest


def _manifest(task: Task, splits: Mapping[str, pa.Table], folder: Path) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "task": task.name,
        "kind": task.kind,
        "text": list(task.text),
        "label_names": list(task.label_names),
        "metrics": list(task.metrics),
        "source": json.loads(task.source.model_dump_json()),
        "report_splits": [name for name in splits if name not in ("train", SELECTION, *task.unlabelled)],
        "unlabelled_splits": list(task.unlabelled),
        "splits": {name: _describe(task, table, folder / "text" / f"{name}.parquet") for name, table in splits.items()},
    }


def freeze_splits(task: Task, protocol: Literal["holdout", "paper"], mirror: Path | None) -> dict[str, pa.Table]:
    """Train, selection, report and unlabelled splits with columns text..., label (float64) and row_id (position in the
    source). Labels of an unlabelled split are NaN, and all its rows are taken.

    holdout carves the selection rows from the training split; paper selects on the first report split itself.
    """
    columns = _columns(task, load_splits(task, mirror))
    unlabelled = {name: columns.pop(name) for name in task.unlabelled}
    generator = np.random.default_rng(task.rows.seed)
    train = columns.pop("train")
    order = generator.permutation(len(train))
    report = {name: _sample(table, task.rows.report, generator) for name, table in columns.items()}
    if protocol == "paper":
        selection, rest = next(iter(report.values())), order
    else:
        wanted = task.rows.selection or min(len(train) // 10, 2000)
        if wanted >= len(train):
            raise DataError(
                f"{task.name}: {len(train)} training rows leave none beside {wanted} selection rows; "
                f"lower tasks.{task.name}.rows.selection"
            )
        selection, rest = train.take(np.sort(order[:wanted])), order[wanted:]
    train = train.take(np.sort(rest[: task.rows.train]))
    splits = {"train": train, SELECTION: selection, **report, **unlabelled}
    for name, table in splits.items():
        if len(table) == 0:
            raise DataError(f"{task.name}: split {name!r} is empty; check the source and tasks.{task.name}.rows")
    return splits


def _sample(table: pa.Table, rows: int | None, generator: np.random.Generator) -> pa.Table:
    if rows is None or rows >= len(table):
        return table
    return table.take(np.sort(generator.choice(len(table), rows, replace=False)))


def _columns(task: Task, raw: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Each split's texts, labels and row ids, without the rows to leave out."""
    where = {split: f"{task.name}: split {split!r}" for split in raw}
    remedy = f"mend tasks.{task.name}.text or .label"
    texts = {split: texts_of(table, task.text, where[split], remedy) for split, table in raw.items()}
    given = {
        where[split]: column(table, task.label, where[split], remedy).to_pylist()
        for split, table in raw.items()
        if split not in task.unlabelled
    }
    # Of all splits at once: what a number means is one question.
    labels = read_labels(task, given, f"mend the row or tasks.{task.name}.label_names")
    out = {}
    for split, table in raw.items():
        labelled = where[split] in labels
        found = labels[where[split]] if labelled else np.full(len(table), np.nan)
        kept = pa.array(np.flatnonzero(~np.isnan(found) if labelled else np.isnan(found)), pa.int64())
        rows = pa.table([*texts[split], pa.array(found, pa.float64())], names=[*task.text, "label"])
        out[split] = rows.take(kept).append_column("row_id", kept)
    return out


def _describe(task: Task, table: pa.Table, path: Path) -> dict[str, Any]:
    labels = table["label"].to_numpy()
    about: dict[str, Any] = {}
    if np.isnan(labels).all():
        pass  # nothing is known of them
    elif task.kind == "classification":
        about = {"label_counts": {name: int(np.sum(labels == i)) for i, name in enumerate(task.label_names)}}
    else:
        about = {"label_mean": round(float(labels.mean()), 6), "label_std": round(float(labels.std()), 6)}
    words = np.array([sum(len(row[c].split()) for c in task.text) for row in table.select(task.text).to_pylist()])
    return {
        "rows": len(table),
        "words_mean": round(float(words.mean()), 3),
        "words_max": int(words.max()),
        "sha256": file_hash(path),
        **about,
    }
