"""What a table of a user's own is about: which columns are text, which is the label, what kind of task it is.

Guesses by the columns' names first, as data sets usually have them, and by their values else.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

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
"""Whole numbers with more different values than this are amounts, and the task a regression."""


@dataclass(frozen=True)
class Guess:
    """A task as a table suggests it.

    Attributes:
        text: one or two columns.
        label_names: classes, sorted; empty for a regression.
        unlabelled: number of rows whose label is empty.
        rare: classes of fewer rows than three splits need.
        repeated: number of rows whose text another row before them has.
        other: further columns with text, which are left out.
    """

    text: tuple[str, ...]
    label: str
    kind: Kind
    label_names: tuple[str, ...]
    unlabelled: int
    rare: tuple[str, ...]
    repeated: int
    other: tuple[str, ...]


def guess(columns: Columns, where: str, text: Sequence[str] = (), label: str | None = None) -> Guess:
    """Guess a task, where it is not said.

    Args:
        where: name of the table, for messages.
        text, label: columns that are said.

    Raises:
        DataError: no column is like a label, or like text; one that is said is not there; or a label is null.
    """
    for name in (*text, *([label] if label else [])):
        if name not in columns:
            raise DataError(f"{where} has no column {shown(name)} (it has {listed(columns)}); name one of these")
    chosen = label or _label(columns, text, where)
    nulls = [row for row, value in enumerate(columns[chosen]) if value is None]
    if nulls:
        raise DataError(
            f"{where}, row {nulls[0]}: column {shown(chosen)} has no value, as in {len(nulls)} rows; fill it in, or "
            "take such rows out"
        )
    texts = tuple(text) or _texts(columns, chosen, where)
    filled = [value for value in columns[chosen] if value]
    kind, names = _kind(filled, f"{where}: column {shown(chosen)}")
    counts = Counter(filled)
    return Guess(
        text=texts,
        label=chosen,
        kind=kind,
        label_names=names,
        unlabelled=len(columns[chosen]) - len(filled),
        repeated=len(columns[chosen]) - len(set(zip(*(columns[name] for name in texts), strict=True))),
        rare=tuple(name for name in names if counts[name] < 10),
        other=tuple(name for name in columns if name not in (*texts, chosen) and words_of(columns[name]) >= 3),
    )


def words_of(values: Sequence[str | None]) -> float:
    """Mean number of words of a column's fields."""
    return sum(len((value or "").split()) for value in values) / max(1, len(values))


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
        raise DataError(f"{where}: no column is like a label (it has {listed(columns)}); name one with --label")
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


def _kind(labels: Sequence[str], where: str) -> tuple[Kind, tuple[str, ...]]:
    """The kind, and the names of the classes in the order of their numbers or letters."""
    different = set(labels)
    numbers = {value: as_number(value) for value in different if not isnan(as_number(value))}
    if different and len(numbers) == len(different):
        whole = all(number == int(number) for number in numbers.values())
        if not whole or len(different) > CLASSES_AS_NUMBERS:
            return "regression", ()
    if len(different) < 2:
        raise DataError(f"{where} holds {listed(different) or 'nothing'} only; a label has two or more; name another")
    if len(different) > MOST_CLASSES:
        raise DataError(
            f"{where} has {len(different)} different values, too many for classes; name another column with --label"
        )
    return "classification", tuple(sorted(different, key=lambda value: (numbers.get(value, 0.0), value)))
