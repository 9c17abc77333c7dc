"""Write each stage's code dependencies into dvc.yaml: python -m tools.write_deps."""

import re

from pipeline.identity.equivalence import FILE
from pipeline.identity.imports import ROOT
from pipeline.identity.reach import PLUMBING, reach

KEYED = ("finetune", "trace")
"""Stages whose cache keys hold the code; they run again when a declaration of equal code is withdrawn."""
PAGES = (".j2", ".css", ".js")
"""Suffixes of page templates, which no import names."""


def code_deps(stage: str) -> list[str]:
    """The files whose definitions a stage's code uses, and the pages beside them, without plumbing."""
    # `settings` writes defaults and checks them, so all of its code counts.
    files = reach([f"stages.{stage}"], plumbing=() if stage == "settings" else PLUMBING)
    folders = {(ROOT / file).parent for file in files}
    pages = [
        path.relative_to(ROOT).as_posix() for folder in folders for path in folder.iterdir() if path.suffix in PAGES
    ]
    return sorted([*files, *pages, *([FILE] if stage in KEYED else [])])


def with_deps(text: str) -> str:
    """dvc.yaml with the code dependencies of every stage replaced."""
    out: list[str] = []
    stage = ""
    for line in text.splitlines():
        if match := re.match(r"  (\w+):$", line):
            stage = match.group(1)
        if re.match(r"\s+- (pipeline|stages)/", line):
            continue
        out.append(line)
        if match := re.match(r"(\s+)deps:$", line):
            out += [f"{match.group(1)}  - {file}" for file in code_deps(stage)]
    return "\n".join(out) + "\n"


def main() -> None:
    """Write the file."""
    path = ROOT / "dvc.yaml"
    path.write_text(with_deps(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
