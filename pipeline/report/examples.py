"""Attacked texts, as a section shows them: the original, and what it became against each defence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.attacks.view import Piece, pieces
from pipeline.results import Attacked, Record


@dataclass(frozen=True)
class Attempt:
    """One attack on one example.

    Attributes:
        defence: who was attacked.
        outcome: what came of it, in words.
        texts: the text, or pair of texts, word by word; empty: not attacked.
    """

    defence: str
    outcome: str
    texts: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True)
class Example:
    """One example, attacked against every defence."""

    title: str
    original: tuple[str, ...]
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class Examples:
    """Examples of one attack, shown closed."""

    title: str
    note: str
    examples: tuple[Example, ...]


NOTE = (
    "The first {count}, in the order of the split, of the examples on which an attack on a row succeeded. Struck out: "
    "words that the attack removed; underlined: words that it put there."
)


def examples_of(name: str, attack: Attacked, defences: Sequence[str]) -> Examples:
    """The examples that a result has of an attack.

    Args:
        name: of the task, with the split where several are attacked.
        defences: what each row is called.
    """
    out = []
    for i, first in enumerate(attack.rows[0].shown):
        records = [row.shown[i] for row in attack.rows]
        attempts = tuple(_attempt(attack, who, record) for who, record in zip(defences, records, strict=True))
        title = f"Row {first.row_id}, {attack.label_names[first.label]}"
        out.append(Example(title, first.original, attempts))
    return Examples(f"Attacked texts of {name}", NOTE.format(count=len(out)), tuple(out))


def _attempt(attack: Attacked, who: str, record: Record) -> Attempt:
    if record.changed is None or record.answer_after is None or record.layers_after is None:
        return Attempt(who, _skipped(attack, record), ())
    texts = tuple(tuple(pieces(*pair)) for pair in zip(record.original, record.changed, strict=True))
    before, after = (attack.label_names[answer] for answer in (record.answer_before, record.answer_after))
    answer = f"{before} → {after}" if before != after else f"still {before}"
    won = "" if record.outcome == "successful" else ", withstands; the last text that was tried"
    counts = ", ".join(_counts(record))
    return Attempt(who, f"{answer}, layers {record.layers_before} → {record.layers_after}, {counts}{won}", texts)


def _counts(record: Record) -> Iterator[str]:
    yield f"{record.words_changed} of {record.words} words"
    yield f"{record.queries} queries"


def _skipped(attack: Attacked, record: Record) -> str:
    if record.reason is not None:
        return f"not attacked: {record.reason}"
    if record.answer_before != record.label:
        return f"not attacked: answers {attack.label_names[record.answer_before]} by itself"
    return f"not attacked: runs all {record.layers_before} layers by itself"
