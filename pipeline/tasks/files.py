"""A user's files as Arrow tables. Every row of a file is a row of its table, or the file is refused with the line."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pipeline.errors import DataError, shown
from pipeline.tasks.delimited import DELIMITERS, LabelColumn, read_delimited

TYPES = (*DELIMITERS, ".jsonl", ".parquet")
_CONTENTS = {
    b"\x1f\x8b": "it is compressed (gzip); unpack it",
    b"PK\x03\x04": "it is a zip archive or a spreadsheet; export the sheet as CSV in UTF-8",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
    b"PAR1": "it is a Parquet file; name it .parquet",
}
"""First bytes of files that no reader of text can read, to what they are and the remedy."""

_NAMES_WRONG = "{}: its column names are not UTF-8; save the file as UTF-8"


def read_file(
    path: Path,
    columns: Collection[str],
    quoted: bool | None = None,
    labels: LabelColumn | None = None,
    check: str = "check the path in params.yaml",
    every: bool = False,
) -> pa.Table:
    """Read .csv, .tsv, .jsonl or .parquet.

    Args:
        columns: columns to read. Fields of text files come as the file's strings, 007 as "007" and an empty cell as "";
            types of a .parquet stay. Any other column is null, whatever it holds: only its name is used, in messages.
        quoted: for .csv and .tsv, as `FileSource.quoted`.
        labels: for .csv and .tsv, what decides where quotes may be read in two ways.
        check: the remedy where a path may be wrong, for messages.
        every: for .jsonl, whether columns are all those of the file, of which some may hold neither text nor numbers:
            such a column is null, and so is NaN; else they are refused.

    Raises:
        DataError: missing, of another type, unreadable, or without rows.
    """
    kind = path.suffix.lower()
    if kind not in TYPES:
        packed = " (unpack a compressed file)" if kind in (".gz", ".bz2", ".xz", ".zst", ".zip") else ""
        raise DataError(f"{path}: unknown file type {shown(path.suffix)}; give one of {', '.join(TYPES)}{packed}")
    try:
        if not path.exists():
            raise DataError(f"{path}: no such file; {check}")
        if not path.is_file() and not path.is_dir():  # to open a pipe may wait for ever
            raise DataError(f"{path}: no ordinary file; {check}")
        if kind == ".parquet":
            table = _read_parquet(path, columns)
        else:
            _refuse_other_content(path, check)
            json_lines = kind == ".jsonl"
            table = _read_json(path, columns, every) if json_lines else _read_text(path, columns, quoted, labels)
    except (pa.ArrowException, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0][:200]
        raise DataError(f"{path}: unreadable as {kind[1:]} ({reason}); mend the file") from None
    if not len(table):
        raise DataError(f"{path}: no rows{' below the header' if kind in DELIMITERS else ''}; give a file with rows")
    return table


def _refuse_other_content(path: Path, check: str) -> None:
    with path.open("rb") as file:
        head = file.read(4)
    for begin, remedy in _CONTENTS.items():
        if head.startswith(begin):
            raise DataError(f"{path}: {remedy}")
    if b"\0" in head:
        raise DataError(f"{path}: it is no text in UTF-8; save it as UTF-8, or {check}")
    if not head:
        raise DataError(f"{path}: the file is empty; give a file with rows")


def _read_text(path: Path, columns: Collection[str], quoted: bool | None, labels: LabelColumn | None) -> pa.Table:
    reading = read_delimited(path, columns, quoted, labels)
    return _as_table(path, reading.names, reading.columns, reading.rows)


def _read_parquet(path: Path, columns: Collection[str]) -> pa.Table:
    data = pyarrow.parquet.ParquetDataset(path)
    try:
        names = data.schema.names
    except UnicodeDecodeError:
        raise DataError(_NAMES_WRONG.format(path)) from None
    once = [name for name in names if name in columns and names.count(name) == 1]
    table = data.read(columns=once)
    values = [table[name] if name in once else pa.nulls(len(table)) for name in names]
    return pa.table(values, names=names).replace_schema_metadata(data.schema.metadata)


def _read_json(path: Path, columns: Collection[str], every: bool) -> pa.Table:
    """One JSON object on each line; a key that a line lacks is null there."""
    decode = json.JSONDecoder(
        object_pairs_hook=_without_repeats, parse_int=str, parse_float=str, parse_constant=float
    ).decode
    names: dict[str, Any] = {}
    values: dict[str, list[str | None]] = {name: [] for name in columns}
    blank, rows = None, 0
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                blank = blank or number
                continue
            where = f"{path}, line {number}"
            if blank:
                raise DataError(f"{path}, line {blank}: blank, before other rows; delete the line, or write its row")
            try:
                row = decode(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise DataError(f"{where}: no JSON ({reason}); write one object on each line") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: no JSON object; write one object on each line")
            names.update(row)
            if every:
                row, nested = _without_nested(row)
                values = {name: column for name, column in values.items() if name not in nested}
            for name, column in values.items():
                column.append(_cell(row.get(name), where, name))
            rows += 1
    keys = list(names)
    return _as_table(path, keys, {i: values[name] for i, name in enumerate(keys) if name in values}, rows)


def _without_nested(row: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """A row without lists, objects and NaN, and the keys of its lists and objects."""
    nested = {name for name, value in row.items() if isinstance(value, (list, dict))}
    return {k: v for k, v in row.items() if k not in nested and not isinstance(v, float)}, nested


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} stands twice")
    return row


def _cell(value: Any, where: str, name: str) -> str | None:
    """A value of a JSON object as the file writes it; numbers come from the decoder as strings."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    kind = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else f"{value}"
    raise DataError(f"{where}: {shown(name)} holds {kind}, neither text nor a number; mend the line")


def _as_table(path: Path, names: Sequence[str], columns: Mapping[int, Sequence[str | None]], rows: int) -> pa.Table:
    try:
        for name in names:
            name.encode()
    except UnicodeEncodeError:
        raise DataError(_NAMES_WRONG.format(path)) from None
    arrays = [_strings(path, names[i], columns[i]) if i in columns else pa.nulls(rows) for i in range(len(names))]
    return pa.table(arrays, names=list(names))


def _strings(path: Path, name: str, values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        row = next(i for i, value in enumerate(values) if value and any("\ud800" <= c <= "\udfff" for c in value))
        raise DataError(f"{path}: column {shown(name)} is not UTF-8 (row {row}); save the file as UTF-8") from None
