"""Columns of a table for a task: texts as strings, labels as numbers. For task data and attack sets."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import DataError, listed, shown
from pipeline.tasks.task import Task

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
"""A number as people and programs write it in a file; Python's own reader also takes 1_0 for a number."""
LARGEST = 1e15
"""Largest size of a regression's label: its square, summed over many rows, still fits the float32 of training."""


def column(table: pa.Table, name: str, where: str, remedy: str) -> pa.ChunkedArray:
    """One column by its name.

    Args:
        where: name of the table, for messages.
        remedy: remedy for a missing column, for messages.

    Raises:
        DataError: the table has no such column, or several.
    """
    count = table.column_names.count(name)
    if count == 0:
        raise DataError(f"{where} has no column {shown(name)} (it has {listed(table.column_names)}); {remedy}")
    if count > 1:
        raise DataError(f"{where} has {count} columns {shown(name)}; rename all but one")
    return table[name]


def as_text(values: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """A column as strings.

    Raises:
        DataError: bytes that are not UTF-8, or no text; the message begins with `what`.
    """
    try:
        strings = values.cast(pa.string())
        strings.validate(full=True)  # a Parquet file may claim that any bytes are text
    except pa.ArrowInvalid:
        raise DataError(f"{what} is not UTF-8; save the file as UTF-8") from None
    except pa.ArrowException:
        raise DataError(f"{what} holds no text; name another column, or mend the source") from None
    return strings


def texts_of(table: pa.Table, names: Sequence[str], where: str, remedy: str) -> list[pa.ChunkedArray]:
    """The text columns as strings; null becomes the empty string.

    Raises:
        DataError: a column is missing, repeated, or not text.
    """
    columns = [(name, column(table, name, where, remedy)) for name in names]
    return [as_text(values, f"{where}: column {shown(name)}").fill_null("") for name, values in columns]


def labels_of(task: Task, table: pa.Table, where: str, remedy: str) -> list[Any]:
    """The label column's values; classes that the source numbers and names (ClassLabel of `datasets`) by their names.

    Args:
        where, remedy: as for `column`.

    Raises:
        DataError: as `column`; or a class in use has a name that is none of the task's.
    """
    values = column(table, task.label, where, remedy)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = as_text(values, f"{where}: column {shown(task.label)}")
    labels: list[Any] = values.to_pylist()
    names = class_names(table, task.label) if task.kind == "classification" else []
    if not names or not pa.types.is_integer(values.type):
        return labels
    own = dict(zip(task.source_names, task.label_names, strict=False)) if set(names) == set(task.source_names) else {}
    classes = {i: own.get(name, name) for i, name in enumerate(names)}
    # What to leave out may be a class's name, or its number where no class has that name.
    dropped = {i for i, name in classes.items() if _is_dropped(task, name)}
    dropped = dropped or {i for i in classes if _is_dropped(task, i)}
    used = sorted(set(labels) & classes.keys() - dropped)
    if np.isnan(_named(task, [classes[i] for i in used])).any():
        raise DataError(
            f"{where}: its classes are {listed(names)}, and label_names are {listed(task.label_names)}; give the "
            f"source's names in tasks.{task.name}.label_names, in any order"
        )
    return [task.drop_label if label in dropped else classes.get(label, label) for label in labels]


def class_names(table: pa.Table, name: str) -> list[str]:
    """Names of a column's classes, by their numbers, which `datasets` keeps beside a table; empty without names."""
    try:
        names: list[str] = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"][name]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [] if names == [str(i) for i in range(len(names))] else names


def note_unused_drop(task: Task, labels: Mapping[str, np.ndarray]) -> None:
    """Print a line where `drop_label` leaves out no row of any column."""
    if task.drop_label is not None and not any(np.isnan(values).any() for values in labels.values()):
        print(f"tasks.{task.name}.drop_label: no row has the label {shown(task.drop_label)}; all are kept", flush=True)


def read_labels(task: Task, columns: Mapping[str, Sequence[Any]], remedy: str) -> dict[str, np.ndarray]:
    """Labels as floats, class indices or real values; NaN for rows to leave out (`drop_label`).

    A label whose text is one of `label_names` is that class, whatever its type: 1 and 1.0 are "1", true is "true" or
    "True". Any other label is an index, counted from 0. Where names are numbers, a label may be both; then all labels
    are read as names, or all as indices.

    Args:
        columns: name of each column, for messages, to its labels; all columns are read in the same way.

    Raises:
        DataError: a label is neither a name nor an index.
    """
    dropped = {where: np.array([_is_dropped(task, v) for v in values], bool) for where, values in columns.items()}
    named = {where: _named(task, values) for where, values in columns.items()}
    counted = {where: _counted(task, values) for where, values in columns.items()}
    if any(not np.isnan(as_number(name)) for name in task.label_names):
        unnamed = any(np.isnan(named[where][~dropped[where]]).any() for where in columns)
        out = counted if unnamed else named
    else:
        out = {where: np.where(np.isnan(named[where]), counted[where], named[where]) for where in columns}
    if any(np.isnan(out[where][~dropped[where]]).any() for where in columns):
        raise DataError(f"{_first_wrong(task, columns, dropped, named, counted)}; {remedy}")
    return {where: np.where(dropped[where], np.nan, out[where]) for where in columns}


def legal_labels(task: Task, values: Sequence[Any]) -> list[bool]:
    """Which of some fields are labels of a task by themselves: a class's name, an index or number, or `drop_label`."""
    numbered = ~np.isnan(_named(task, values)) | ~np.isnan(_counted(task, values))
    return [bool(legal) or _is_dropped(task, value) for legal, value in zip(numbered, values, strict=True)]


def _is_dropped(task: Task, value: Any) -> bool:
    drop = task.drop_label
    return drop is not None and value is not None and (str(value) == str(drop) or as_number(value) == as_number(drop))


def _named(task: Task, values: Sequence[Any]) -> np.ndarray:
    """Class index of each label that is a name; NaN for others."""
    exact = {name: i for i, name in enumerate(task.label_names)}
    forms = Counter(_form(name) for name in task.label_names)
    like = {_form(name): i for name, i in exact.items() if forms[_form(name)] == 1}
    classes = (
        exact.get(str(value), like.get(_form(value))) if isinstance(value, (str, int, float)) else None
        for value in values
    )
    return np.array([np.nan if i is None else i for i in classes], dtype=np.float64)


def _counted(task: Task, values: Sequence[Any]) -> np.ndarray:
    """Labels as numbers, for a classification as class indices; NaN for others."""
    numbers = np.array([as_number(value) for value in values], dtype=np.float64)
    if task.kind == "regression":
        numbers[np.abs(numbers) > LARGEST] = np.nan
    else:
        numbers[(numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= len(task.label_names))] = np.nan
    return numbers


def as_number(value: Any) -> float:
    """The value as a finite number; NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return np.nan
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return np.nan
    number = float(value)
    return number if np.isfinite(number) else np.nan


def _form(value: str | int | float) -> str:
    """A label's text in a normal form, which undoes changes by file readers: 1.0 for 1, True for true."""
    number = as_number(value)
    if not np.isnan(number):
        return repr(number)
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text


def _first_wrong(
    task: Task,
    columns: Mapping[str, Sequence[Any]],
    dropped: Mapping[str, np.ndarray],
    named: Mapping[str, np.ndarray],
    counted: Mapping[str, np.ndarray],
) -> str:
    """The message for the first label that is neither name nor index, else for the first that is no name."""
    names, last = listed(task.label_names), len(task.label_names) - 1
    expected = f"one of {names} or 0..{last}" if names else f"a number from -{LARGEST:g} to {LARGEST:g}"
    unnamed = {where: np.isnan(named[where]) & ~dropped[where] for where in columns}
    neither = {where: unnamed[where] & np.isnan(counted[where]) for where in columns}
    if not any(rows.any() for rows in neither.values()):
        neither, expected = unnamed, f"one of {names}, and not all labels are 0..{last}"
    where = next(where for where in columns if neither[where].any())
    row = int(neither[where].argmax())
    return f"{where}, row {row}: label {shown(columns[where][row])} is not {expected}"
