"""Check the links of the documentation's site: python -m tools.check_site FOLDER.

Pages, anchors and files that links name must be there. Addresses elsewhere are checked in form alone. Nothing that a
page loads may come from another host, so that the site works without a network.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

RESOURCES = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}
OTHERS = {"canonical", "search"}
"""Kinds of `link` that load nothing."""


class Page(HTMLParser):
    """The anchors of a page, and what it links to and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in RESOURCES and values.get(RESOURCES[tag]) and values.get("rel") not in OTHERS:
            self.resources.append(values[RESOURCES[tag]])


def faults(folder: Path) -> Iterator[str]:
    """Each fault of the site as a line."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        yield f"{folder}: no page; run `make docs`"
    for path, page in pages.items():
        for address in (*page.links, *page.resources):
            fault = _fault(path, address, pages, loads=address in page.resources)
            if fault:
                yield f"{path.relative_to(folder.resolve())}: {address}: {fault}"


def _fault(path: Path, address: str, pages: dict[Path, Page], *, loads: bool) -> str:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        if loads:
            return "comes from another host"
        return "" if parts.scheme == "https" and "." in parts.netloc and " " not in address else "no https address"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "no such place on the page"
    return ""


def main() -> None:
    """Print the faults; exit code 1 where there is one."""
    found = list(faults(Path(sys.argv[1])))
    print("\n".join([*found, f"{len(found)} faults"]))
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
