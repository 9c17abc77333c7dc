"""docs/results-schema.md from the classes of `pipeline.results`: a section per file, then one per part."""

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import JsonValue

from pipeline.results import FILES, CurvePoint, Part, Result
from pipeline.settings import Block

HEAD = """# Stored results

`python -m tools.write_docs` makes this page from the classes in `pipeline/results/`; edit the classes, not this page.

A class writes each JSON file, and every reader uses the same class. A file has every field of its class and `schema`,
with sorted keys. None in a description is `null` in the file: undefined or not run, never 0. Scores, shares and
speed-ups are rounded to six places. A file of another schema, or with a missing or wrong field, is refused in one line,
which names the field and the command that makes the file again.

Tables are not JSON:

| file | from | holds |
|---|---|---|
"""
TABLES = (
    (
        "outputs/traces/<task>/<key>.<split>.safetensors",
        "trace",
        "the trace of one model and split, in [a format of its own](trace-format.md)",
    ),
    (
        "outputs/evaluate/<task>.curves.csv",
        "evaluate",
        f"every setting of every criterion, model and split: {', '.join(f'`{name}`' for name in CurvePoint._fields)}; "
        "threshold `inf` is the full model, score `nan` is undefined",
    ),
    (
        "outputs/predictions/<task>/<model>/*.tsv",
        "evaluate",
        "`index` and `prediction` of every row of a split without labels; GLUE's tasks in its server's format",
    ),
    (
        "outputs/attack/<task>.parquet",
        "attack",
        "every attacked example: the defence, and the fields of [Record](#record)",
    ),
)
"""Stored files without a class in `pipeline.results`: path, stage, content."""
_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def page() -> str:
    """The page's text."""
    tables = "".join(f"| `{path}` | {stage} | {holds} |\n" for path, stage, holds in TABLES)
    files = (_section(cls, f"{text_of(cls)}\n\nFrom `{cls.made_by}`, schema {cls.schema_version}.") for cls in FILES)
    parts = (_section(cls, text_of(cls)) for cls in _parts())
    return "\n".join([HEAD + tables, *files, "## Parts\n", *parts])


def place(cls: type[Result]) -> str:
    """The path of a file, from the beginning of its class's docstring."""
    match = re.match(r"`([^`]+)`", cls.__doc__ or "")
    assert match, f"{cls.__name__}: begin its docstring with the path of the file, in backticks"
    return match.group(1)


def _section(cls: type[Part], text: str) -> str:
    fields = [
        f"| `{name}` | {shown(field.annotation)} | {cell(field.description or '')} |"
        for name, field in cls.model_fields.items()
    ]
    return "\n".join([f"## {cls.__name__}", "", text, "", "| field | type | meaning |", "|---|---|---|", *fields, ""])


def _parts() -> list[type[Part]]:
    """Parts in the order of their first use, each once."""
    seen: dict[type[Part], None] = {}

    def visit(annotation: Any) -> None:
        for part in _parts_in(annotation):
            if part not in seen:
                seen[part] = None
                for field in part.model_fields.values():
                    visit(field.annotation)

    for cls in FILES:
        for field in cls.model_fields.values():
            visit(field.annotation)
    return list(seen)


def _parts_in(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    elif annotation is not JsonValue:
        for argument in get_args(annotation):
            yield from _parts_in(argument)


def shown(annotation: Any) -> str:
    """A type in words, with links to the sections of parts."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is JsonValue:
        return "any JSON"
    if origin is Annotated:  # with a range, which the class holds
        return shown(arguments[0])
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if annotation is type(None):
        return "null"
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(shown, arguments)))
    if origin is list:
        return f"list of {shown(arguments[0])}"
    if origin is tuple:
        return f"list of {shown(arguments[0])}" if arguments[-1] is ... else f"[{', '.join(map(shown, arguments))}]"
    if origin is dict:
        return f"{shown(arguments[1])}, by {'name' if shown(arguments[0]) == _PLAIN[str] else shown(arguments[0])}"
    if issubclass(annotation, Block):
        return "a block, below"
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def text_of(cls: type[Part] | type[Block]) -> str:
    """The docstring as paragraphs of one line each."""
    paragraphs = re.split(r"\n\s*\n", (cls.__doc__ or "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def cell(text: str) -> str:
    """A text in the cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")
