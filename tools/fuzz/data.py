"""Data files: tables written in every usual way, which must come back row by row; and such files with mutated bytes."""

import contextlib
import csv
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipeline.tasks.names import resolve_task
from pipeline.tasks.task import TaskSettings
from pipeline.tasks.text.prepare import freeze_splits
from tools.fuzz.bytes import mutated
from tools.fuzz.outcome import Tally

Row = tuple[str, int]
PIECES = (
    "a film", "007", "1.50", "", " ", "NA", "null", "true", "it's", 'she said "no"', '"', '""', "a,b", "a\tb", "ä",
    "日本", "😀", "two\nlines", "cr\rlf\r\n", "\\", "\\n", "-", "#x", "1e5", "2020-01-01", "'", "x" * 300, "{", "[1]",
    "<SPLIT>",
)  # fmt: skip


def rows_of(generator: random.Random) -> list[Row]:
    """A small table with both classes."""
    texts = [" ".join(generator.choices(PIECES, k=generator.randint(1, 3))) for _ in range(generator.randint(4, 12))]
    return [(text, i % 2) for i, text in enumerate(texts)]


def writings(rows: list[Row], generator: random.Random) -> Iterator[tuple[str, str, bytes, bool | None]]:
    """The table in each way that programs write it: a label, the file's type, its content, and `quoted`."""
    for delimiter, kind in ((",", "csv"), ("\t", "tsv")):
        for quoting in (csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC):
            for end in ("\n", "\r\n"):
                text = io.StringIO(newline="")
                writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
                writer.writerow(("id", "text", "label"))
                writer.writerows((f"r{i}", *row) for i, row in enumerate(rows))
                content = text.getvalue()
                content = content.removesuffix(end) if generator.random() < 0.5 else content
                encoding = generator.choice(("utf-8", "utf-8-sig"))
                yield f"{kind}, quoting {quoting}, {end!r}, {encoding}", kind, content.encode(encoding), True
    lines = [json.dumps({"text": text, "label": label, "other": [1, {"a": None}]}) for text, label in rows]
    yield "jsonl", "jsonl", "\n".join(lines).encode(), None
    plain = [json.dumps({"label": label, "text": text}, ensure_ascii=False) for text, label in rows]
    yield "jsonl, not escaped", "jsonl", ("\n".join(plain) + "\n").encode(), None
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"text": [r[0] for r in rows], "label": [r[1] for r in rows]}), sink)
    yield "parquet", "parquet", sink.getvalue(), None


def read(path: Path, quoted: bool | None) -> list[Row]:
    """The rows of a report split, as `prepare` reads them."""
    source: dict[str, Any] = {"train": str(path), "report": {"held": str(path)}}
    if quoted is not None and path.suffix in (".csv", ".tsv"):
        source |= {"quoted": quoted}
    settings = {"source": source, "text": ["text"], "label": "label", "label_names": ["neg", "pos"]}
    task = resolve_task("own", TaskSettings.model_validate(settings | {"rows": {"selection": 1}}))
    with contextlib.redirect_stdout(io.StringIO()):
        table = freeze_splits(task, "holdout", None)["held"]
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    if table["row_id"].to_pylist() != list(range(len(table))):
        raise AssertionError("row ids have gaps")
    return [(text, int(label)) for text, label in zip(texts, labels, strict=True)]


def _other(rows: list[Row], found: list[Row]) -> str | None:
    return None if found == rows else f"{len(rows)} rows {rows!r:.300} were read as {len(found)} rows {found!r:.300}"


def _dropped(content: bytes, kind: str, found: list[Row]) -> str | None:
    """Whether an accepted file without quotes has fewer rows than lines."""
    if kind == "parquet" or (kind != "jsonl" and b'"' in content):
        return None
    text = content.decode("utf-8-sig", "replace")
    if kind == "jsonl":
        expected = len([line for line in text.split("\n") if line.strip()])
    else:
        expected = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").count("\n")
    return None if len(found) == expected else f"{expected} rows became {len(found)} rows: {content[:300]!r}"


def fuzz(count: int, seed: int = 0) -> Tally:
    """Try about `count` files, a third of them as programs write them."""
    generator, tally = random.Random(seed), Tally("data")
    with tempfile.TemporaryDirectory() as folder:
        while tally.counts["tried"] < count:
            rows = rows_of(generator)
            for label, kind, content, quoted in writings(rows, generator):
                path = Path(folder, f"rows.{kind}")
                path.write_bytes(content)
                call: Callable[[], list[Row]] = partial(read, path, quoted)
                tally.run(f"{label}: {rows!r}", call, partial(_other, rows), must_pass=True)
                if quoted is not None:  # found out, or refused where it is in doubt
                    tally.run(f"{label}, not said: {rows!r}", partial(read, path, None), partial(_other, rows))
                for changed in (mutated(content, generator) for _ in range(2)):
                    path.write_bytes(changed)
                    call = partial(read, path, generator.choice((quoted, None)))
                    tally.run(f"{label}, mutated: {changed[:200]!r}", call, partial(_dropped, changed, kind))
                path.unlink()
    return tally
