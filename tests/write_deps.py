"""Write each stage's code dependencies into dvc.yaml from the import graph: python -m tests.write_deps."""

import re

from pipeline.identity.imports import ROOT
from pipeline.identity.reach import PLUMBING, reach


def code_deps(stage: str) -> list[str]:
    """Files of which a stage's code consists, plumbing left out."""
    # Defaults and their checks are all that `settings` writes, so that no plumbing is left out there.
    return list(reach([f"stages.{stage}"], plumbing=() if stage == "settings" else PLUMBING))


def main() -> None:
    path = ROOT / "dvc.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    out: list[str] = []
    stage = ""
    for line in lines:
        if match := re.match(r"  (\w+):$", line):
            stage = match.group(1)
        if re.match(r"\s+- (pipeline|stages)/", line):
            continue
        out.append(line)
        if match := re.match(r"(\s+)deps:$", line):
            out += [f"{match.group(1)}  - {file}" for file in code_deps(stage)]
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
