"""Prepare a text task: splits as Parquet, labels as numbers, tokens as Arrow."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pipeline.results import Inputs, Split
from pipeline.tasks.columns import labels_of, note_unused_drop, read_labels, texts_of
from pipeline.tasks.content import table_content_hash
from pipeline.tasks.sources import load_splits
from pipeline.tasks.splits import TRAIN, Protocol, choose_rows, refuse_empty
from pipeline.tasks.task import FileSource, Task
from pipeline.tasks.text.tokenize import save_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def prepare_texts(
    task: Task, tokenizers: Mapping[str, "Tokenizer"], protocol: Protocol, folder: Path, mirror: Path | None
) -> tuple[dict[str, Split], dict[str, Inputs]]:
    """Write text/<split>.parquet, <backbone>/<split>.arrow and <backbone>/tokenizer.json below `folder`.

    Returns:
        The manifest's entries for the splits, and for the tokens of each backbone.

    Raises:
        DataError: as `pipeline.tasks.prepare.prepare`.
    """
    tables = freeze_splits(task, protocol, mirror)
    (folder / "text").mkdir()
    splits = {}
    for name, table in tables.items():
        pyarrow.parquet.write_table(table, folder / "text" / f"{name}.parquet")
        splits[name] = _describe(task, table)
    return splits, {name: save_tokens(task, tok, tables, folder / name) for name, tok in tokenizers.items()}


def freeze_splits(task: Task, protocol: Protocol, mirror: Path | None) -> dict[str, pa.Table]:
    """Train, selection, report and unlabelled splits with columns text..., label (float64) and row_id (position in the
    source). Labels of an unlabelled split are NaN, and all its rows are taken.

    Equal texts of a file come into one of the splits that are drawn from it. Public data sets are drawn row by row, so
    that their trials stay comparable.
    """
    columns = _columns(task, load_splits(task, mirror))
    unlabelled = {name: columns.pop(name) for name in task.unlabelled}
    alike = _alike(task, columns[TRAIN]) if isinstance(task.source, FileSource) else None
    chosen = choose_rows(task.name, {name: len(table) for name, table in columns.items()}, task.rows, protocol, alike)
    refuse_empty(task.name, {name: len(table) for name, table in unlabelled.items()})
    splits = {name: columns[source].take(index) for name, (source, index) in chosen.items()}
    if isinstance(task.source, FileSource):
        _note_trained(task, splits)
    return splits | unlabelled


def _alike(task: Task, table: pa.Table) -> np.ndarray:
    """A number for each row, equal where all texts are, (n,)."""
    alike = np.zeros(len(table), np.int64)
    for name in task.stored_text:
        codes = table[name].combine_chunks().dictionary_encode()
        alike = alike * len(codes.dictionary) + codes.indices.to_numpy()
    return alike


def _note_trained(task: Task, splits: Mapping[str, pa.Table]) -> None:
    """Print how many rows of each reported file have a text that is trained on."""
    trained = set(zip(*(splits[TRAIN][name].to_pylist() for name in task.stored_text), strict=True))
    for split in task.source.report if isinstance(task.source, FileSource) else ():
        table = splits[split]
        known = sum(row in trained for row in zip(*(table[name].to_pylist() for name in task.stored_text), strict=True))
        if known:
            print(
                f"tasks.{task.name}.source.report.{split}: beware, {known} of {len(table)} rows have a text that is "
                "trained on; their scores are too high",
                flush=True,
            )


def _columns(task: Task, raw: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Each split's texts, labels and row ids, without the rows to leave out."""
    where = {split: f"{task.name}: split {split!r}" for split in raw}
    remedy = f"mend tasks.{task.name}.text or .label"
    texts = {split: texts_of(table, task.text, where[split], remedy) for split, table in raw.items()}
    label_columns = {
        where[split]: labels_of(task, table, where[split], remedy)
        for split, table in raw.items()
        if split not in task.unlabelled
    }
    # All splits together, so that a number has one meaning: name or index.
    labels = read_labels(task, label_columns, f"mend the row or tasks.{task.name}.label_names")
    note_unused_drop(task, labels)
    out = {}
    for split, table in raw.items():
        labelled = where[split] in labels
        values = labels[where[split]] if labelled else np.full(len(table), np.nan)
        kept = pa.array(np.flatnonzero(~np.isnan(values) if labelled else np.isnan(values)), pa.int64())
        rows = pa.table([*texts[split], pa.array(values, pa.float64())], names=[*task.stored_text, "label"])
        out[split] = rows.take(kept).append_column("row_id", kept)
    return out


def _describe(task: Task, table: pa.Table) -> Split:
    labels = table["label"].to_numpy()
    label_statistics: dict[str, Any] = {}
    if np.isnan(labels).all():
        pass  # a split without labels
    elif task.kind == "classification":
        label_statistics = {"label_counts": {name: int(np.sum(labels == i)) for i, name in enumerate(task.label_names)}}
    else:
        label_statistics = {"label_mean": round(float(labels.mean()), 6), "label_std": round(float(labels.std()), 6)}
    texts = table.select(task.stored_text).to_pylist()
    words = np.array([sum(len(text.split()) for text in row.values()) for row in texts])
    return Split(
        rows=len(table),
        sha256=table_content_hash(table),
        words_mean=round(float(words.mean()), 3),
        words_max=int(words.max()),
        **label_statistics,
    )
