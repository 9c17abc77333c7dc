"""Where rows come from: the hub, its mirror on disk, own files, or the demo's generators. All give Arrow tables."""

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from pipeline.errors import DataError
from pipeline.hub import prepare_for
from pipeline.tasks import DemoSource, FileSource, HubSource, Task

DEMO_REPORT = "validation"
_DEMO_ROWS = {"train": 3000, "report": 600}


def load_splits(task: Task, mirror: Path | None) -> dict[str, pa.Table]:
    """Read a task's splits: "train", one per report split and one per split to predict, under our names for them.

    Raises:
        DataError: a missing or unreadable source, file or split.
    """
    source = task.source
    if isinstance(source, DemoSource):
        return _generate(source, task)
    tables = _read(source, {"train": source.train, **source.report}, mirror)
    try:
        return tables | _read(source, task.unlabelled, mirror)
    except DataError as error:
        raise DataError(f"tasks.{task.name}.test: {error}, or set it to false") from None


def _read(source: HubSource | FileSource, names: Mapping[str, str | Path], mirror: Path | None) -> dict[str, pa.Table]:
    """Splits by our names for them, given the source's."""
    if isinstance(source, FileSource):
        return {ours: read_file(Path(path)) for ours, path in names.items()}
    tables = load_hub(source, mirror, [str(theirs) for theirs in names.values()])
    return {ours: tables[str(theirs)] for ours, theirs in names.items()}


def load_hub(source: HubSource, mirror: Path | None, splits: list[str]) -> dict[str, pa.Table]:
    """Read splits of a hub data set, by their names on the hub; from below `mirror` where one is given.

    Raises:
        DataError: no such data set, configuration or split, or neither network nor mirror.
    """
    if mirror is None:
        prepare_for(source.hub)
    import datasets

    shown = f"{source.hub}{f' ({source.config})' if source.config else ''}"
    where = source.hub
    if mirror is not None:
        local = mirror / "datasets" / source.hub
        if not local.is_dir():
            raise DataError(f"{shown}: no folder {local} in the hub mirror; put the data set there or unset HUB_MIRROR")
        where = str(local)
    datasets.disable_progress_bars()
    # Below a mirror, a cache of its own: the shared one goes by the folder's name and would not see other files in it.
    with tempfile.TemporaryDirectory() if mirror is not None else nullcontext() as cache:
        tables = {}
        for split in splits:
            try:
                data = datasets.load_dataset(where, source.config, split=split, cache_dir=cache)
            except Exception as error:  # datasets raises a dozen kinds, from OSError to its own
                reason = " ".join(str(error).split())[:200]
                remedy = (
                    "check the name" if mirror else "check the name and the network, or name a mirror with HUB_MIRROR"
                )
                raise DataError(f"{shown}: split {split!r} cannot be read ({reason}); {remedy}") from None
            tables[split] = data.with_format("arrow")[:]
    return tables


def read_file(path: Path) -> pa.Table:
    """Read .csv, .tsv, .jsonl or .parquet.

    Raises:
        DataError: missing, of another type, or unreadable.
    """
    readers = {
        ".csv": lambda: pyarrow.csv.read_csv(path, parse_options=_comma_separated()),
        ".tsv": lambda: pyarrow.csv.read_csv(path, parse_options=_tab_separated()),
        ".jsonl": lambda: pyarrow.json.read_json(path),
        ".parquet": lambda: pyarrow.parquet.read_table(path),
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: unknown file type {path.suffix!r}; give one of {', '.join(readers)}")
    try:
        return reader()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path in params.yaml") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: unreadable as {path.suffix[1:]} ({reason}); mend the file") from None


def _comma_separated() -> Any:
    # Arrow reads block by block, and without this a block may end at a line break inside quotes.
    return pyarrow.csv.ParseOptions(newlines_in_values=True)


def _tab_separated() -> Any:
    # GLUE's own .tsv files have unbalanced quotes in their sentences.
    return pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False)


def _generate(source: DemoSource, task: Task) -> dict[str, pa.Table]:
    from pipeline.data import demo

    make = {"sentences": demo.sentences, "pairs": demo.pairs, "similarity": demo.similarity}[source.demo]
    # Generated train rows cover the selection rows that are carved out of them.
    train = (task.rows.train or _DEMO_ROWS["train"]) + (task.rows.selection or 0)
    report = task.rows.report or _DEMO_ROWS["report"]
    seed = 2 * task.rows.seed
    return {
        "train": pa.table(dict(make(train, seed=seed))),
        DEMO_REPORT: pa.table(dict(make(report, seed=seed + 1))),
    }
