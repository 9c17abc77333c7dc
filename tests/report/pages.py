"""Reports of synthetic results, and how tests read a page."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.report.collect import collect
from pipeline.report.render import Provenance, Report, build
from tests.stored_results import params_for, write_all

TIMES = "\u00d7"
PROVENANCE = Provenance("0123abc", "feed5eed")
CUT = {"rows": {"train": 2000}}
GLUE = {"mnli": {}, "sst2": {}, "mrpc": CUT, "stsb": {}, "cifar10": {}}
TABLE_1 = "Comparison on albert-base (the paper's Table 1)"


def small(backbone: str, tasks: tuple[str, ...] = ("sst2", "stsb"), **changes: Any) -> Params:
    """Two tasks, one of them a regression, and two methods."""
    return params_for({task: {} for task in tasks}, backbone, **{"methods": ["single_exit", "joint"], **changes})


def report_of(root: Path, params: Params, **written: Any) -> Report:
    """The report of results written below a root."""
    write_all(Workspace(root), params, **written)
    return build(collect(params, Workspace(root)), PROVENANCE)


class Page(HTMLParser):
    """A page's tables by their title, as rows of cell texts; its addresses; and whether its tags are balanced."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.balanced = True
        self._rows: list[list[str]] = []
        self._in_cell = False
        self.feed(html)
        self.close()
        self.balanced &= not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.addresses += [named[name] for name in ("src", "href", "xlink:href", "action", "data") if name in named]
        self.ids += [named["id"]] if "id" in named else []
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "div" and named.get("role") == "region":
            self._rows = self.tables.setdefault(named["aria-label"], [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
            self._in_cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        self.balanced &= bool(self.open) and self.open.pop() == tag
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1] = f"{self._rows[-1][-1]} {data}".strip()

    def row(self, table: str, *words: str) -> dict[str, str]:
        """The first row whose cells hold all the words, by column."""
        head, *rows = self.tables[table]
        first = next(row for row in rows if all(any(word in cell for cell in row) for word in words))
        return dict(zip(head, first, strict=True))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a stored JSON file."""
    payload = json.loads(path.read_text(encoding="utf-8"))
    change(payload)
    path.write_text(json.dumps(payload), encoding="utf-8")
