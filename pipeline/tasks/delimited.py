"""Text with delimiters (.csv, .tsv): every line of the file is part of one row, and no row is dropped.

Quotes are a convention that no file states. Where they enclose fields (RFC 4180, spreadsheets, pandas), a field may
hold delimiters and line breaks, and a quote inside it is doubled. Where they are plain characters (GLUE's .tsv), every
line is a row. A source's `quoted` decides. Without it:

- .csv: quotes enclose fields. Refused where a quote is not closed, and where a field runs over several lines although
  every line of the file is a row by itself: then a forgotten quote may have swallowed rows.
- .tsv: quotes enclose fields where the file can only be read so, or is as a program writes it: quotes around all fields
  of a column, or only around those that need them. They are plain where the file can only be read so, or where a few
  fields happen to begin and end with a quote. A file between these is refused.

The fields of a .csv are separated by commas; or, where its header has none outside quotes, by the semicolons or tabs
that it has there, as spreadsheets write them where the comma is for decimals.

Labels settle a doubt: quotes enclose fields where every row then has a label of the task, and no row that plain
characters would make of the file otherwise has one. Choices are printed.
"""

import csv
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TextIO

from pipeline.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""File type to its delimiter."""
NAMES = {";": "semicolons", "\t": "tabs"}
"""What may separate the fields of a .csv in place of commas."""


@dataclass(frozen=True)
class LabelColumn:
    """The column of a task's labels.

    Attributes:
        name: the column's name.
        legal: which of some fields are labels of the task.
    """

    name: str
    legal: Callable[[Sequence[str]], Sequence[bool]]


@dataclass
class Reading:
    """A file read in one way.

    Attributes:
        names: the header.
        columns: position of each column asked for to its fields.
        rows: number of rows.
        broken: first and last line of each row of several lines.
    """

    names: list[str]
    columns: dict[int, list[str]] = field(default_factory=dict)
    rows: int = 0
    broken: list[tuple[int, int]] = field(default_factory=list)


def read_delimited(
    path: Path, wanted: Collection[str], quoted: bool | None, labels: LabelColumn | None = None
) -> Reading:
    """Read a .csv or .tsv with a header.

    A blank line is a row with an empty field where the file has one column; where it has several, a blank line is
    refused, but at the end of the file.

    Args:
        wanted: columns to keep.
        quoted: whether quotes enclose fields; None decides as the module says.
        labels: what decides in doubt, one of the columns wanted.

    Raises:
        DataError: a row of too few or many fields, a quote that is not closed, or doubt; with the line.
    """
    usual = DELIMITERS[path.suffix.lower()]
    delimiter = _delimiter(path) if usual == "," else usual
    if delimiter != usual:
        print(f"{path}: fields are separated by {NAMES[delimiter]}", flush=True)
    if quoted is not None:
        return _read(path, delimiter, wanted, quoted)
    if usual == ",":
        return _csv(path, delimiter, wanted, labels)
    if not _has_quotes(path):
        return _read(path, delimiter, wanted, quoted=False)
    reading, quoted = _tab_separated(path, wanted, labels)
    _tell(path, quoted)
    return reading


def _delimiter(path: Path) -> str:
    """What separates the fields of a .csv, by its header."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        bare = re.sub('"[^"]*"', "", file.readline())
    return max(NAMES, key=bare.count) if "," not in bare and any(mark in bare for mark in NAMES) else ","


def _tell(path: Path, quoted: bool) -> None:
    other = "plain characters" if quoted else "enclosing fields"
    print(
        f"{path}: quotes {'enclose fields' if quoted else 'are plain characters'}; for {other} set "
        f"quoted: {str(not quoted).lower()} in the source",
        flush=True,
    )


def _csv(path: Path, delimiter: str, wanted: Collection[str], labels: LabelColumn | None) -> Reading:
    reading = _read(path, delimiter, wanted, quoted=True)
    plain = _attempt(path, delimiter, wanted, quoted=False) if reading.broken else None
    if not isinstance(plain, Reading):
        return reading
    if not _settled(plain, reading, labels):
        raise _doubt(path, reading)
    _tell(path, quoted=True)
    return reading


def _tab_separated(path: Path, wanted: Collection[str], labels: LabelColumn | None) -> tuple[Reading, bool]:
    """The reading, and whether quotes enclose fields in it."""
    plain, quoted = (_attempt(path, "\t", wanted, quoted=way) for way in (False, True))
    if isinstance(quoted, DataError):
        if isinstance(plain, DataError):
            found, other = (str(error).removeprefix(f"{path}, ").split(";")[0] for error in (plain, quoted))
            raise DataError(f"{path}, {found}; with quotes that enclose fields, {other}; mend the file")
        return plain, False
    if isinstance(plain, DataError) or len(plain.columns) < len(quoted.columns):
        return quoted, True
    if plain.rows != quoted.rows:
        # Several columns: no text has tabs at just these places. One column: every line is a row.
        if len(plain.names) > 1:
            return plain, False
        raise _doubt(path, quoted)
    if _settled(plain, quoted, labels):
        return quoted, True
    verdicts = [_written_quoted(plain.columns[i], quoted.columns[i], len(plain.names)) for i in plain.columns]
    if False in verdicts:
        return plain, False
    if None in verdicts:
        raise _doubt(path, quoted)
    return quoted, True


def _settled(plain: Reading, quoted: Reading, labels: LabelColumn | None) -> bool:
    """Whether the labels show that quotes enclose fields."""
    if labels is None or any(reading.names.count(labels.name) != 1 for reading in (plain, quoted)):
        return False
    fields = [reading.columns[reading.names.index(labels.name)] for reading in (plain, quoted)]
    if quoted.broken:  # every line is a row of the plain reading: line 2 its first
        differ = [line - 2 for first, last in quoted.broken for line in range(first + 1, last + 1)]
    else:
        differ = [i for i, (one, other) in enumerate(zip(*fields, strict=True)) if one != other]
    legal = labels.legal(fields[0])
    return bool(differ) and not any(legal[i] for i in differ) and all(labels.legal(fields[1]))


def _written_quoted(plain: Sequence[str], quoted: Sequence[str], columns: int) -> bool | None:
    """Whether a column's quotes were set by a program: around all fields, or around those that need them.

    Returns:
        None where in doubt: most fields are quoted, or just those with a comma, as spreadsheets do.
    """
    bare = [raw for raw, value in zip(plain, quoted, strict=True) if not raw.startswith('"')]
    unneeded = [
        value
        for raw, value in zip(plain, quoted, strict=True)
        if raw.startswith('"') and '"' not in value and (value or columns > 1)
    ]
    if any('"' in raw for raw in bare):
        return False
    if not unneeded or not bare:
        return True
    by_comma = all("," in value for value in unneeded) and not any("," in raw for raw in bare)
    return None if by_comma or len(unneeded) > len(bare) else False


def _doubt(path: Path, quoted: Reading) -> DataError:
    where = f", line {quoted.broken[0][0]}" if quoted.broken else ""
    found = "quotes may enclose fields or be plain characters"
    if quoted.broken:
        found = "the quotes may enclose a field of several lines, or be plain characters of several rows"
    return DataError(f"{path}{where}: {found}; set quoted: true or quoted: false in the source")


def _attempt(path: Path, delimiter: str, wanted: Collection[str], quoted: bool) -> Reading | DataError:
    try:
        return _read(path, delimiter, wanted, quoted)
    except DataError as error:
        return error


def _has_quotes(path: Path) -> bool:
    with path.open("rb") as file:
        return any(b'"' in block for block in iter(lambda: file.read(2**20), b""))


def _read(path: Path, delimiter: str, wanted: Collection[str], quoted: bool) -> Reading:
    # Bytes that are not UTF-8 matter only in the columns that are used; they are looked for there.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _rows(path, file, delimiter, quoted)
        reading = Reading(next(rows, (1, 1, []))[2])
        width = len(reading.names)
        if not width:
            raise DataError(f"{path}, line 1: blank; begin the file with the names of its columns")
        reading.columns = {i: [] for i, name in enumerate(reading.names) if name in wanted}
        keep = [(i, values.append) for i, values in reading.columns.items()]
        blank = None
        for first, last, row in rows:
            if not row and width > 1:
                blank = blank or first
                continue
            if blank:
                raise DataError(f"{path}, line {blank}: blank, before other rows; delete the line, or write its row")
            row = row or [""]
            if len(row) != width:
                raise _ragged(path, first, row, width, quoted)
            for i, append in keep:
                append(row[i])
            reading.rows += 1
            if last > first:
                reading.broken.append((first, last))
    return reading


def _rows(path: Path, file: TextIO, delimiter: str, quoted: bool) -> Iterator[tuple[int, int, list[str]]]:
    """First line, last line and fields of each row, the header included; a blank line has no fields."""
    csv.field_size_limit(sys.maxsize)  # Python's own limit is 131,072 characters
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
    first = 1
    try:
        for row in reader:
            yield first, reader.line_num, row
            first = reader.line_num + 1
    except csv.Error as error:
        found = "a quote is never closed"
        if "end of data" not in str(error):
            closed = f" on line {reader.line_num}" if reader.line_num > first else ""
            found = f"a quote closes{closed} and text follows it"
        raise DataError(
            f"{path}, line {first}: {found}; close it and double the quotes inside a quoted text, or set quoted: false "
            "in the source if quotes are plain characters"
        ) from None


def _ragged(path: Path, line: int, row: Sequence[str], width: int, quoted: bool) -> DataError:
    fields = f"{len(row)} field{'s' if len(row) != 1 else ''}, and the header has {width}"
    hint = ""
    if not quoted and any('"' in value for value in row):
        hint = ", or set quoted: true in the source if quotes enclose fields"
    return DataError(f"{path}, line {line}: {fields}; mend the line{hint}")
