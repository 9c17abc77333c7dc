"""Write each stage's code dependencies into dvc.yaml: python -m tools.write_deps."""

import re

from pipeline.identity.imports import ROOT
from pipeline.identity.reach import reach

PLUMBING = (
    "pipeline/errors.py",
    "pipeline/settings.py",
    "pipeline/params.py",
    "pipeline/layout.py",
    "pipeline/storage.py",
    "pipeline/identity/*",
    "pipeline/running/*",
    "pipeline/tasks/hub.py",
    "pipeline/training/code.py",
)
"""Code that reads settings, stores and tracks: it changes no result, so no stage depends on it but `settings`, whose
result is what it reads."""


def code_deps(stage: str) -> list[str]:
    """Files of which a stage's code reaches anything, plumbing left out."""
    return sorted(reach([f"stages.{stage}"], plumbing=() if stage == "settings" else PLUMBING))


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
