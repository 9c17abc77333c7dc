"""A page that shows the changed texts: one HTML file, no scripts, all text escaped."""

import difflib
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal, NamedTuple

from pipeline.attacks.defences import Defence
from pipeline.results import Record
from pipeline.tasks.task import Task

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #ccc;padding:.3em .6em;text-align:left;"
    "vertical-align:top}td.n{text-align:right;white-space:nowrap}del{background:#fdd}ins{background:#dfd;"
    "text-decoration:none}"
)
_HEADS = ("Row", "Text", "Answer", "Queries", "Layers")


def view(task: Task, attacked: Mapping[str, Sequence[tuple[Defence, Sequence[Record]]]]) -> str:
    """The page of all successful attacks, by split and defence, with removed and inserted words marked.

    Args:
        attacked: each split's defences with their records; empty where `attack.tasks` does not name the task.
    """
    sections = "".join(
        _section(task, f"{defence.name}, {split}" if len(attacked) > 1 else defence.name, records)
        for split, attacks in attacked.items()
        for defence, records in attacks
    )
    sections = sections or f"<p>Not attacked: attack.tasks of params.yaml does not name {escape(task.name)}.</p>"
    title = f"Changed texts, {escape(task.name)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1>{sections}</html>\n"
    )


def _section(task: Task, title: str, records: Sequence[Record]) -> str:
    won = [record for record in records if record.outcome == "successful"]
    head = "".join(f"<th>{name}</th>" for name in _HEADS)
    rows = "".join(_row(task, record) for record in won)
    return f"<h2>{escape(title)}</h2><p>{len(won)} of {len(records)} examples.</p><table><tr>{head}</tr>{rows}</table>"


def _row(task: Task, record: Record) -> str:
    pairs = zip(record.original, record.changed or (), strict=True)
    text = "<br>".join(marked(before, after) for before, after in pairs)
    answers = f"{_name(task, record.answer_before)} &rarr; {_name(task, record.answer_after)}"
    layers = f"{record.layers_before} &rarr; {record.layers_after}"
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in (record.queries, layers))
    return f'<tr><td class="n">{record.row_id}</td><td>{text}</td><td>{answers}</td>{numbers}</tr>'


def _name(task: Task, answer: int | None) -> str:
    return "" if answer is None else escape(task.label_names[answer] if task.label_names else str(answer))


def marked(before: str, after: str) -> str:
    """A changed text as HTML, with removed and inserted words marked.

    >>> marked("a <b> film", "a fine film")
    'a <del>&lt;b&gt;</del><ins>fine</ins> film'
    """
    tags = {"same": "{}", "removed": "<del>{}</del>", "inserted": "<ins>{}</ins>"}
    return "".join(tags[piece.kind].format(escape(piece.text)) for piece in pieces(before, after))


class Piece(NamedTuple):
    """Words of a changed text."""

    kind: Literal["same", "removed", "inserted"]
    text: str


def pieces(before: str, after: str) -> list[Piece]:
    """A changed text, word by word, with what was removed and inserted.

    >>> [tuple(piece) for piece in pieces("a bad film", "a fine film")]
    [('same', 'a '), ('removed', 'bad'), ('inserted', 'fine'), ('same', ' film')]
    """
    old, new = (re.findall(r"\s+|\S+", text) for text in (before, after))
    out = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = "".join(old[i:j]), "".join(new[k:m])
        if kind == "equal":
            out.append(Piece("same", gone))
        else:
            out += [Piece("removed", gone)] * bool(gone) + [Piece("inserted", come)] * bool(come)
    return out
