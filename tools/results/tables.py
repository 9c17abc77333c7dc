"""Tables of the pages docs/results*.md, which tools.evidence writes between their markers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.params import Params

Table = Callable[[Params, Path], str]
"""Makes a table from a profile's settings and its folder in docs/evidence."""


def page(text: str, tables: Mapping[str, Table], params: Params, folder: Path) -> str:
    """A page with its tables made anew, each between `<!-- table: NAME -->` and `<!-- end -->`."""
    for name, table in tables.items():
        start, end = f"<!-- table: {name} -->\n", "<!-- end -->\n"
        before, rest = text.split(start)
        text = before + start + table(params, folder) + end + rest.split(end, 1)[1]
    return text


def stored(text: str, name: str) -> str:
    """The table of a name in a page."""
    return text.split(f"<!-- table: {name} -->\n")[1].split("<!-- end -->\n")[0]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(line.replace("  ", " ") for line in lines) + "\n"
