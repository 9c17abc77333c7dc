"""What a table of a user's own is about: which columns are text, which is the label, what kind of task it is.

Guesses by the columns' names first, as data sets usually have them, and by their values else.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from unicodedata import normalize

from pipeline.errors import DataError, listed, shown
from pipeline.tasks.columns import as_number
from pipeline.tasks.task import Kind

Columns = Mapping[str, Sequence[str | None]]
"""A table's columns as texts, by name; None for a null."""

LABELS = ("label", "labels", "class", "category", "target", "sentiment", "rating", "stars", "score", "gold_label", "y")
TEXTS = ("text", "review", "sentence", "comment", "content", "body", "message", "tweet", "document", "description")
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("query", "passage"),
)  # fmt: skip
"""Columns of two texts that belong together; their order is that of the model's input."""
MOST_CLASSES = 100
CLASSES_AS_NUMBERS = 20
"""Whole numbers with more different values than this are amounts, and the task a regression; nobody having said."""
_UNSPACED = re.compile("[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)
"""A number as spreadsheets write it where the comma is for decimals, or for thousands."""


@dataclass(frozen=True)
class Guess:
    """A task as a table suggests it.

    Attributes:
        text: one or two columns.
        label_names: classes, sorted; empty for a regression.
        counts: rows of each class.
        whole: whether all labels are whole numbers, which may be classes or amounts.
        unlabelled: number of rows whose label is empty.
        repeated: number of rows whose text another row before them has.
        other: further columns with text, which are left out.
    """

    text: tuple[str, ...]
    label: str
    kind: Kind
    label_names: tuple[str, ...]
    counts: tuple[int, ...]
    whole: bool
    unlabelled: int
    repeated: int
    other: tuple[str, ...]

    @property
    def rare(self) -> tuple[str, ...]:
        """Classes of fewer rows than three splits need."""
        return tuple(name for name, count in zip(self.label_names, self.counts, strict=True) if count < 10)

    @property
    def alike(self) -> tuple[tuple[str, ...], ...]:
        """Classes that differ only in case, spaces, the way a letter is encoded, or the way a number is written."""
        forms: dict[str, list[str]] = {}
        for name in self.label_names:
            form = " ".join(normalize("NFKC", name).casefold().split())
            number = as_number(form)
            forms.setdefault(form if isnan(number) else repr(number), []).append(name)
        return tuple(tuple(names) for names in forms.values() if len(names) > 1)


def guess(
    columns: Columns, where: str, text: Sequence[str] = (), label: str | None = None, kind: Kind | None = None
) -> Guess:
    """Guess a task, where it is not said.

    Args:
        where: name of the table, for messages.
        text, label: columns that are said.
        kind: what the labels are. None: a regression where they are numbers that are not all whole, or of more than
            `CLASSES_AS_NUMBERS` different values; else classes.

    Raises:
        DataError: no column is like a label, or like text; one that is said is not there; a label is null; a row has a
            label and no text; or the labels are not of the kind that is said.
    """
    for name in (*text, *([label] if label else [])):
        if name not in columns:
            raise DataError(f"{where} has no column {shown(name)} (it has {listed(columns)}); name one of these")
    chosen = label or _label(columns, text, where)
    nulls = _without_value(columns[chosen])
    if nulls:
        raise DataError(
            f"{where}, row {nulls[0]}: column {shown(chosen)} has no value, as in {rows_said(len(nulls))}; fill it in, "
            "or take such rows out"
        )
    texts = tuple(text) or _texts(columns, chosen, where)
    filled = [value for value in columns[chosen] if value]
    found, names, whole = _kind(filled, f"{where}: column {shown(chosen)}", kind)
    _refuse_no_text([columns[name] for name in texts], columns[chosen], f"{where}, row", texts)
    counts = Counter(filled)
    return Guess(
        text=texts,
        label=chosen,
        kind=found,
        label_names=names,
        counts=tuple(counts[name] for name in names),
        whole=whole,
        unlabelled=len(columns[chosen]) - len(filled),
        repeated=len(columns[chosen]) - len(set(zip(*(columns[name] for name in texts), strict=True))),
        other=tuple(name for name in columns if name not in (*texts, chosen) and words_of(columns[name]) >= 3),
    )


def _refuse_no_text(
    texts: Sequence[Sequence[str | None]], labels: Sequence[str | None], where: str, names: Sequence[str]
) -> None:
    """Raise DataError for rows that have a label and nothing to read; one text of a pair may be empty."""
    rows = enumerate(zip(labels, *texts, strict=True))
    empty = [row for row, (label, *parts) in rows if label and not any(part and part.strip() for part in parts)]
    if empty:
        raise DataError(
            f"{where} {empty[0]}: no text in {listed(names)}, as in {rows_said(len(empty))}; write one, or take such "
            "rows out"
        )


def rows_said(count: int) -> str:
    """A number of rows in words.

    >>> rows_said(1), rows_said(2)
    ('1 row', '2 rows')
    """
    return f"{count} row{'s' if count != 1 else ''}"


def words_of(values: Sequence[str | None]) -> float:
    """Mean number of words of a column's fields."""
    return sum(words_in(value or "") for value in values) / max(1, len(values))


def words_in(text: str) -> int:
    """The number of words of a text; a Chinese character or a Japanese kana is one, since no spaces part them.

    >>> words_in("a good film"), words_in("\u597d\u7535\u5f71 2")
    (3, 4)
    """
    return len((text if text.isascii() else _UNSPACED.sub(" x ", text)).split())


def _label(columns: Columns, text: Sequence[str], where: str) -> str:
    rest = {name: values for name, values in columns.items() if name not in text}
    by_name = {name.lower(): name for name in rest}
    for known in LABELS:
        if known in by_name:
            return by_name[known]
    few = {name: len({value for value in values if value}) for name, values in rest.items()}
    rows = max(map(len, rest.values()), default=0)
    like = {name: count for name, count in few.items() if 2 <= count <= min(20, rows // 5) and words_of(rest[name]) < 4}
    if not like:
        numbers = [name for name, values in rest.items() if few[name] > 1 and _numbers(filter(None, values))]
        instead = f", such as --label {shlex.quote(numbers[-1])}, whose numbers make a regression" if numbers else ""
        raise DataError(
            f"{where}: no column is like a label (it has {listed(columns)}); name one with --label{instead}"
        )
    return min(reversed(like), key=lambda name: like[name])  # of equals the last, where labels usually stand


def _texts(columns: Columns, label: str, where: str) -> tuple[str, ...]:
    by_name = {name.lower(): name for name in columns if name != label}
    for first, second in PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for known in TEXTS:
        if known in by_name:
            return (by_name[known],)
    words = {
        name: words_of(values)
        for name, values in columns.items()
        if name != label and any(isnan(as_number(value or "0")) for value in values)
    }
    if not words or max(words.values()) < 2:
        raise DataError(f"{where}: no column is like text (it has {listed(columns)}); name one with --text")
    return (max(words, key=lambda name: words[name]),)


def _without_value(labels: Sequence[str | None]) -> list[int]:
    """Rows of a label column that hold nothing: a null, or among numbers one that is none (NaN)."""
    nulls = [row for row, value in enumerate(labels) if value is None]
    nan = [row for row, value in enumerate(labels) if value is not None and value.strip().casefold() == "nan"]
    others = {value for value in labels if value and value.strip().casefold() != "nan"}
    return sorted(nulls + nan) if nan and others and _numbers(others) else nulls


def _numbers(values: Iterable[str]) -> bool:
    """Whether every value is a number."""
    return not any(isnan(as_number(value)) for value in values)


def _kind(labels: Sequence[str], where: str, said: Kind | None) -> tuple[Kind, tuple[str, ...], bool]:
    """The kind, the classes in the order of their numbers or letters, and `Guess.whole`."""
    different = set(labels)
    numbers = {value: as_number(value) for value in different if not isnan(as_number(value))}
    numeric = bool(different) and len(numbers) == len(different)
    whole = numeric and all(number == int(number) for number in numbers.values())
    commas = bool(different) and not numeric and all(map(_COMMA.fullmatch, different - numbers.keys()))
    if commas and said != "classification":
        words = listed(sorted(different - numbers.keys()), limit=3)
        raise DataError(
            f"{where} holds numbers with commas ({words}); write them without, decimals behind a point, or say --kind "
            "classification if they are names"
        )
    if said == "regression" and not numeric:
        words = listed(sorted(different - numbers.keys()), limit=3)
        raise DataError(f"{where} holds {words or 'nothing'}, and a regression needs numbers; name another column")
    if len(different) < 2:
        raise DataError(f"{where} holds {listed(different) or 'nothing'} only; a label has two or more; name another")
    if said == "regression" or (said is None and numeric and not (whole and len(different) <= CLASSES_AS_NUMBERS)):
        return "regression", (), whole
    if len(different) > MOST_CLASSES:
        raise DataError(
            f"{where} has {len(different)} different values, too many for classes; name another column with --label"
        )
    classes = tuple(sorted(different, key=lambda value: (numbers.get(value, 0.0), value)))
    return "classification", classes, whole
