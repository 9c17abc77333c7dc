"""Write each stage's code dependencies into dvc.yaml from the import graph: python -m tests.write_deps."""

import re
from pathlib import Path

from tests.imports import PLUMBING, ROOT, closure


def code_deps(stage: str) -> list[str]:
    """Files that a stage's code consists of, plumbing left out."""
    return sorted(closure(Path(f"stages/{stage}.py"), PLUMBING))


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
