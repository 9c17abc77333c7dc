"""The blocks of the documentation's pages, and a shell that runs them in order, each in what the last one left."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.identity.imports import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("ray_jobs/*.md"), *ROOT.glob("docs/**/*.md")])
RUN, SHOWN = ("sh", "python"), ("text", "json", "csv")
"""Languages of blocks that are run, and of those that show what the block before printed."""
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r"<!-- elsewhere: ([^>]+) -->\n\Z")
TEST = re.compile(r"^<!-- test\n(.*?)-->$", re.MULTILINE | re.DOTALL)
TIMEOUT = 600


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        title: the file that it is, or changes; empty: none.
        elsewhere: why it cannot run on any machine (a cloud, a registry): it is parsed only. Empty: it is run.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str
    elsewhere: str = ""

    def __str__(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order, with the tests' own in comments (`<!-- test`), which readers do not see."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        comment = ELSEWHERE.search(text[: match.start()])
        language, title, content = match.groups(default="")
        found.append((match.start(), language, title, content, comment.group(1) if comment else ""))
    found += [(match.start(), "sh", "", match.group(1), "") for match in TEST.finditer(text)]
    return [Block(page, text.count("\n", 0, at) + 1, *rest) for at, *rest in sorted(found)]


def changed_by(diff: str, text: str) -> str:
    """A file after a block of the page: its lines of context and those taken out (-) stand there once."""
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if line[0] in "- ")
    after = "\n".join(line[1:] for line in lines if line[0] in "+ ")
    assert text.count(before + "\n") == 1, f"not there once:\n{before}"
    return text.replace(before, after)


def write_or_change(block: Block, folder: Path) -> Path:
    """Do what a block with a title says: write the file, or change it; the file."""
    path = folder / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    content = changed_by(block.text, path.read_text(encoding="utf-8")) if block.language == "diff" else block.text
    path.write_text(content, encoding="utf-8")
    return path


class Shell:
    """A reader's shell, in a project's folder: what a block exports, and where it changes to, holds for the next.

    `replaced` holds what stands otherwise on this machine than on the page, such as a port.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.printed = folder, ""
        self.replaced: dict[str, str] = {}
        self.environment = dict(environment)
        self.state = folder.parent / f"{folder.name}.shell"

    def follow(self, page: Path) -> None:
        """Do all that a page says; its output is as the page shows it."""
        for block in blocks_of(page):
            if block.elsewhere:
                continue
            if block.title:
                write_or_change(block, self.folder)
            elif block.language in RUN:
                self.printed = self._run(block)
            elif block.language in SHOWN:
                check_shown(block, self.printed)
            else:
                assert block.language == "yaml", f"{block}: nothing runs or checks {block.language}"

    def _run(self, block: Block) -> str:
        before = f"cd '{self.folder}'\n[ ! -e '{self.state}' ] || . '{self.state}'\nset -eo pipefail"
        python = block.language == "python"
        script = f"python - <<'END OF BLOCK'\n{block.text}END OF BLOCK" if python else block.text
        for shown, here in self.replaced.items():
            script = script.replace(shown, here)
        after = f"export -p > '{self.state}'; echo \"cd '$PWD'\" >> '{self.state}'"
        done = subprocess.run(
            ["bash", "-c", f"{before}\n{script}\n{after}"], env=self.environment, text=True, capture_output=True,
            timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}:\n{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


def check_shown(block: Block, printed: str) -> None:
    """What a page shows was printed: whole lines in a row, `...` standing for anything."""
    pattern = re.escape(block.text.strip()).replace(re.escape("..."), ".*?").replace(r"\ ", " ")
    assert re.search(rf"^{pattern}$", printed, re.MULTILINE | re.DOTALL), f"{block}: not printed:\n{printed}"
