"""docs/settings.md from the classes of params.yaml's blocks: every key with its type, default and meaning."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.params import Params
from pipeline.settings import Block
from tools.schema_page import cell, shown, text_of

HEAD = """# Settings: every key of params.yaml

`python -m tools.write_docs` makes this page from the classes that read `params.yaml`; edit the classes, not this page.

Only `tasks` is required. An unknown key is refused with the nearest one. The file is YAML 1.2, as DVC reads it: `2e-5`
is a number and `no` a text. [Your own data](guides/own-data.md) has an example; `profiles/` holds whole files.
"""


def page() -> str:
    """The page's text."""
    sections = (_section(path, cls) for path, cls in _blocks("", Params))
    return "\n".join([HEAD, *sections])


def _blocks(path: str, cls: type[Block]) -> Iterator[tuple[str, type[Block]]]:
    """The keys that hold a block, with its class: a block before those inside it."""
    yield path, cls
    for name, field in cls.model_fields.items():
        for inner in _blocks_in(field.annotation):
            key = f"{path}.{name}" if path else name
            named = getattr(field.annotation, "__origin__", None) is dict
            yield from _blocks(f"{key}.<name>" if named else key, inner)


def _blocks_in(annotation: Any) -> Iterator[type[Block]]:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _blocks_in(argument)


def _section(path: str, cls: type[Block]) -> str:
    meanings = _docstrings(cls)
    rows = [
        f"| `{name}` | {shown(field.annotation)} | {_default(field)} | {cell(meanings.get(name, ''))} |"
        for name, field in cls.model_fields.items()
    ]
    title = f"`{path}`" if path else "The whole file"
    if cls.__name__.endswith("Source"):
        title += f": {cls.__name__.removesuffix('Source').lower().replace('file', 'files')}"
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join([f"## {title}", "", text_of(cls), "", *table])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    if isinstance(value, Block) or (isinstance(value, dict) and any(isinstance(v, Block) for v in value.values())):
        return "its own defaults" if isinstance(value, Block) else f"`{', '.join(value)}`"
    return f"`{json.dumps(value, default=str)}`"


def _docstrings(cls: type[Block]) -> dict[str, str]:
    """The text below each field of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            texts[field.target.id] = str(after.value.value)  # type: ignore[attr-defined]
    return texts
