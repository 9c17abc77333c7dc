"""The whole project in an empty folder, for tests of the real graph."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace as Layout
from tests.conftest import POINTERS


class Project:
    """The project in an empty folder.

    Args:
        git: whether it is a git repository; else DVC is told that there is none.
    """

    def __init__(self, folder: Path, mlflow_store: Path, *, git: bool = False) -> None:
        self.folder, self.here = folder, Layout(folder)
        folder.mkdir(parents=True)
        for name in ("pipeline", "stages", "profiles"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "dvc.yaml", folder)
        shutil.copy(mlflow_store, folder / "mlflow.db")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(POINTERS)}
        self.environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(folder / "hf"),
            "DVC_NO_ANALYTICS": "1",
        }
        if git:
            self.environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
            shutil.copy(ROOT / ".gitignore", folder)
            self.git("init", "-q", "-b", "main")
            self.git("config", "user.name", "Ann")
            self.git("config", "user.email", "ann@example.org")
        self.dvc("init", "-q", *([] if git else ["--no-scm"]))
        shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, env=self.environment, check=True, capture_output=True)

    def commit(self) -> None:
        """Commit all that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-qm", "a commit")

    @classmethod
    def clone(cls, of: "Project", folder: Path) -> "Project":
        """A git clone of a project."""
        made = cls.__new__(cls)
        made.folder, made.here, made.environment = folder, Layout(folder), of.environment
        subprocess.run(["git", "clone", "-q", of.folder, folder], env=of.environment, check=True)
        return made

    def write_params(self, params: Mapping[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False), encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip

    def dvc(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def repro(self, *options: str) -> list[str]:
        """Run the graph; the stages that ran."""
        return re.findall(r"^Running stage '([^']+)'", self.dvc("repro", *options), re.MULTILINE)

    def page(self) -> str:
        return (self.here.report / "report.md").read_text(encoding="utf-8")
