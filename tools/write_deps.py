"""Write each stage's code dependencies into dvc.yaml: python -m tools.write_deps."""

import re

from pipeline.identity.equivalence import FILE
from pipeline.identity.imports import ROOT
from pipeline.identity.reach import PLUMBING, reach

KEYED = ("finetune", "trace")
"""Stages whose cache has keys with the code in them: a declaration that is taken back runs them again."""


def code_deps(stage: str) -> list[str]:
    """Files of which a stage's code reaches anything, plumbing left out."""
    # Defaults and their checks are all that `settings` writes, so that no plumbing is left out there.
    files = reach([f"stages.{stage}"], plumbing=() if stage == "settings" else PLUMBING)
    return sorted([*files, FILE] if stage in KEYED else files)


def with_deps(text: str) -> str:
    """dvc.yaml with the code dependencies of every stage anew."""
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
