"""The examples under attack: a fixed sample of an attack set, or of the task's report split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pipeline.attacks.settings import AttackTask
from pipeline.errors import ArtifactError
from pipeline.layout import HERE
from pipeline.tasks.columns import labels_of, read_labels, texts_of
from pipeline.tasks.sources import load_hub
from pipeline.tasks.task import Task

Text = str | tuple[str, ...]
"""One input of a model: a text, or a pair of texts."""


@dataclass(frozen=True)
class Example:
    """One example: its row in the set, its texts (one or two) and its label as a class index."""

    row_id: int
    texts: tuple[str, ...]
    label: int


def load_examples(task: Task, setting: AttackTask, split: str, seed: int, mirror: Path | None) -> list[Example]:
    """Draw `setting.examples` rows, or all where there are fewer.

    The rows come in the order drawn. A larger sample begins with the rows of a smaller one, so attacked shards keep.

    Args:
        split: the task's report split, used where the setting names no attack set.

    Raises:
        DataError: the set, a column or a label does not fit the task.
        ArtifactError: the report split was not prepared.
    """
    table = _report_split(task, split) if setting.source is None else _attack_set(task, setting, mirror)
    rows = np.random.default_rng(seed).permutation(len(table))[: setting.examples]
    texts = zip(*(table[name].to_pylist() for name in task.stored_text), strict=True)
    every = list(zip(table["row_id"].to_pylist(), texts, table["label"].to_pylist(), strict=True))
    return [Example(int(every[i][0]), every[i][1], int(every[i][2])) for i in rows]


def describe_source(task: Task, setting: AttackTask, split: str) -> str:
    """Where the examples come from, for the result."""
    if setting.source is None:
        return f"{task.name}/{split}"
    return f"{setting.source.hub}/{next(iter(setting.source.report.values()))}"


def _report_split(task: Task, split: str) -> pa.Table:
    path = HERE.texts(task.name, split)
    try:
        return pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: unreadable ({reason}); run `dvc repro -f prepare@{task.name}`") from None


def _attack_set(task: Task, setting: AttackTask, mirror: Path | None) -> pa.Table:
    assert setting.source is not None
    key = f"attack.tasks.{task.name}.source: {setting.source.hub!r}"
    split = next(iter(setting.source.report.values()))
    table = load_hub(setting.source, mirror, [split])[split]
    columns = setting.text or task.text
    remedy = f"name its text columns in attack.tasks.{task.name}.text, or another set"
    texts = texts_of(table, columns, key, remedy)
    label_columns = {key: labels_of(task, table, key, remedy)}
    labels = read_labels(task, label_columns, f"name a set with the labels of {task.name}")[key]
    kept = np.flatnonzero(~np.isnan(labels))  # without the rows to leave out
    values = [*texts, pa.array(labels), pa.array(range(len(table)), pa.int64())]
    return pa.table(values, names=[*task.stored_text, "label", "row_id"]).take(kept)
