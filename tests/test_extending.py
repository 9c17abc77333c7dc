"""The guides that change code, done in a copy of the project: the stages run, and the results are there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace as Layout
from pipeline.results import Latency
from tests.documents import blocks_of, write_or_change
from tests.workspace import small_params

pytestmark = pytest.mark.slow

GUIDES = [
    ROOT / f"docs/guides/{name}.md" for name in ("own-criterion", "own-method", "own-model", "own-data", "result-field")
]
COPIED = ("pipeline", "stages", "tools", "docs", "profiles", "dvc.yaml")
WRITTEN = {"docs/results-schema.md", "docs/criteria.md", "dvc.yaml"}
"""What the tools write."""


def make_changes(folder: Path) -> set[str]:
    """Make the guides' changes of the code; the files touched."""
    changes = [block for guide in GUIDES for block in blocks_of(guide) if block.title.startswith("pipeline/")]
    for block in changes:
        write_or_change(block, folder)
    return {block.title for block in changes}


def different(folder: Path) -> set[str]:
    """Files of the copy that are not those of the project."""
    paths = [path.relative_to(folder) for name in COPIED for path in [folder / name, *(folder / name).rglob("*")]]
    files = [path for path in paths if (folder / path).is_file() and "__pycache__" not in path.parts]
    return {
        path.as_posix()
        for path in files
        if not (ROOT / path).is_file() or (ROOT / path).read_bytes() != (folder / path).read_bytes()
    }


@pytest.fixture
def project(tmp_path: Path, mlflow_store: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    shutil.copy(mlflow_store, tmp_path / "mlflow.db")
    raw = small_params()
    raw["methods"], raw["evaluate"]["criteria"] = ["quadratic"], {"margin": {}, "patience": {}}
    raw["attack"]["tasks"], raw["latency"] = {}, {"tasks": ["demo-sentences"], "rows": 4, "batch_size": 2, "repeats": 2}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_changes_of_the_guides(project: Path) -> None:
    touched = make_changes(project)
    run(project, "tools.write_docs")
    run(project, "tools.write_deps")
    assert different(project) == touched | WRITTEN
    for what, name in (("criteria", "margin"), ("methods", "quadratic"), ("backbones", "bert-tiny"), ("tasks", "imdb")):
        assert re.search(rf"^{name} ", run(project, "pipeline", "list", what), re.MULTILINE), name
    assert "`slowest_ms`" in (project / "docs/results-schema.md").read_text(encoding="utf-8")
    for page in ("criteria/margin.py", "recipes/quadratic.py"):
        assert page in (project / "dvc.yaml").read_text(encoding="utf-8")
    for stage in ("settings", "prepare", "finetune", "trace", "evaluate", "latency", "attack", "simulate", "report"):
        per_task = stage in ("prepare", "trace", "evaluate", "latency", "attack")
        run(project, f"stages.{stage}", *(["demo-sentences"] if per_task else []))
    here = Layout(project)
    report = (here.report / "index.html").read_text(encoding="utf-8")
    for shown in ("margin (worked example)", "quadratic", "Slowest, ms"):
        assert shown in report, shown
    # Read in the project as it is, a file of the new schema is one line.
    with pytest.raises(Exception, match=f"schema {Latency.schema_version + 1} is not {Latency.schema_version}; run it"):
        Latency.read(here.latency("demo-sentences"), "run it")
