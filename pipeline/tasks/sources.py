"""Sources of rows: the hub, its mirror on disk, files, or the demo's generators. All give Arrow tables."""

import tempfile
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.tasks.columns import legal_labels
from pipeline.tasks.delimited import LabelColumn
from pipeline.tasks.files import read_file
from pipeline.tasks.hub import prepare_for
from pipeline.tasks.task import DemoSource, FileSource, HubSource, Rows, Task
from pipeline.tasks.words import DEMO_CLASSES

DEMO_REPORT = "validation"


def load_splits(task: Task, mirror: Path | None) -> dict[str, pa.Table]:
    """Read a task's splits under this project's names: "train", the report splits and the splits to predict.

    Raises:
        DataError: a missing or unreadable source, file or split.
    """
    source = task.source
    if isinstance(source, DemoSource):
        return _generate(source, task)
    tables = _read(
        source, {"train": source.train, **source.report}, (*task.text, task.label), mirror, label_column(task)
    )
    try:
        return tables | _read(source, task.unlabelled, task.text, mirror)
    except DataError as error:
        raise DataError(f"tasks.{task.name}.test: {error}, or set it to false") from None


def label_column(task: Task) -> LabelColumn:
    """A task's label column and what is a label in it, for the reader of files."""
    return LabelColumn(task.label, partial(legal_labels, task))


def _read(
    source: HubSource | FileSource,
    names: Mapping[str, str | Path],
    columns: Collection[str],
    mirror: Path | None,
    labels: LabelColumn | None = None,
) -> dict[str, pa.Table]:
    """Splits under this project's names; `names` maps them to the source's names or files."""
    if isinstance(source, FileSource):
        return {split: read_file(Path(path), columns, source.quoted, labels) for split, path in names.items()}
    tables = load_hub(source, mirror, [str(source_name) for source_name in names.values()])
    return {split: tables[str(source_name)] for split, source_name in names.items()}


def load_hub(source: HubSource, mirror: Path | None, splits: list[str]) -> dict[str, pa.Table]:
    """Read splits of a hub source by their names on the hub, from `mirror` where it is set.

    Raises:
        DataError: no such source, configuration or split, or neither network nor mirror.
    """
    if mirror is None:
        prepare_for(source.hub)
    import datasets

    shown = f"{source.hub}{f' ({source.config})' if source.config else ''}"
    where = source.hub
    if mirror is not None:
        local = mirror / "datasets" / source.hub
        if not local.is_dir():
            raise DataError(f"{shown}: no folder {local} in the hub mirror; put the data there or unset HUB_MIRROR")
        where = str(local)
    datasets.disable_progress_bars()
    # A mirror gets a temporary cache: the shared one is keyed by folder name and misses changed files.
    with tempfile.TemporaryDirectory() if mirror is not None else nullcontext() as cache:
        tables = {}
        for split in splits:
            try:
                data = datasets.load_dataset(where, source.config, split=split, cache_dir=cache)
            except Exception as error:  # datasets raises many kinds
                reason = " ".join(str(error).split())[:200]
                remedy = (
                    "check the name" if mirror else "check the name and the network, or name a mirror with HUB_MIRROR"
                )
                raise DataError(f"{shown}: split {split!r} cannot be read ({reason}); {remedy}") from None
            tables[split] = data.with_format("arrow")[:]
    return tables


def demo_sizes(rows: Rows) -> tuple[int, int]:
    """Numbers of rows to generate, train and report; train includes the selection rows, which are taken from it."""
    return (rows.train or 3000) + (rows.selection or 0), rows.report or 600


def _generate(source: DemoSource, task: Task) -> dict[str, pa.Table]:
    from pipeline.tasks.demo import text as demo

    makers = {"sentences": demo.sentences, "pairs": demo.pairs, "similarity": demo.similarity}
    make = makers[source.demo]
    train, report = demo_sizes(task.rows)
    seed = 2 * task.rows.seed
    made = {"train": dict(make(train, seed=seed)), DEMO_REPORT: dict(make(report, seed=seed + 1))}
    if source.demo in DEMO_CLASSES:
        for columns in made.values():
            columns["label"] = [DEMO_CLASSES[source.demo][label] for label in columns["label"]]
    return {split: pa.table(columns) for split, columns in made.items()}
