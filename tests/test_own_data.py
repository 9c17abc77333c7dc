"""From a table of reviews to a report, with the commands that the README gives, in a fresh clone."""

import csv
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.identity.imports import ROOT
from tests.conftest import POINTERS

MOST_COMMANDS = 5
GOOD, BAD = ("warm", "funny", "moving", "bright"), ("dull", "long", "cold", "flat")


def commands_of_the_readme() -> list[str]:
    """The lines of the block with `init`, and the clone before them, which the README leaves to the reader."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n((?:[^`]*\n)?[^\n`]*pipeline init ~/reviews\.csv.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    return [f"git clone -q {ROOT} project && cd project", *(line for line in lines if line)]


def write_reviews(path: Path, rows: int) -> None:
    """A table as a spreadsheet writes it: quotes, doubled quotes, line breaks."""
    generator = random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "review", "stars"])
        for i in range(rows):
            words = generator.choices(GOOD if i % 2 else BAD, k=3) + generator.choices(("a", "film", "plot"), k=4)
            generator.shuffle(words)
            writer.writerow([i, f'{" ".join(words)},\nand I say "so"', ("bad", "good")[i % 2]])


def link_environment(project: Path) -> None:
    """Give the clone the packages of this one, so that `make install` has nothing to do."""
    environment = project / ".venv"
    environment.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (environment / part).symlink_to(Path(sys.prefix) / part)
    (environment / ".installed").touch()


@pytest.mark.slow
def test_from_a_csv_to_a_report(tmp_path: Path) -> None:
    """Every choice that a beginner would not know has a default."""
    commands = commands_of_the_readme()
    assert len(commands) <= MOST_COMMANDS
    write_reviews(tmp_path / "reviews.csv", 60)
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*POINTERS, "DVC_", "GIT_"))}
    environment = kept | {
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    printed = ""
    for i, command in enumerate(commands):
        if i == 1:
            link_environment(tmp_path / "project")
        before = "" if i == 0 else "cd project && " + (". .venv/bin/activate && " if i > 1 else "")
        done = subprocess.run(
            ["bash", "-ec", before + command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        printed += done.stdout
    assert "classification of 60 rows" in printed
    assert "2 classes (bad, good)" in printed
    page = tmp_path / "project/outputs/report/index.html"
    assert f"report: {page.resolve()}" in printed
    text = (page.parent / "report.md").read_text(encoding="utf-8")
    assert "## Does early exit pay here?" in text
    assert "reviews: demo-albert, joint" in text
    # The user's file is as it was, and nothing of the project was changed but its settings.
    status = subprocess.run(
        ["git", "status", "--short"], cwd=page.parents[2], capture_output=True, text=True, check=True
    )
    assert {line.split()[-1] for line in status.stdout.splitlines()} <= {"params.yaml", "dvc.lock", ".venv"}
