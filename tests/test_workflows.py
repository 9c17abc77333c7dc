"""What runs elsewhere: workflows, the lock and the Makefile name the same Pythons and commands that exist.

`make check` runs actionlint and zizmor over the workflows.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipeline.identity.imports import ROOT

PYTHONS = ["3.11", "3.12", "3.13"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / ".github/workflows").iterdir()
}


def commands(workflow: dict[str, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def locked() -> list[Requirement]:
    """The lines of the lock without hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", text))
    assert all("--hash=sha256:" in entry for entry in entries)
    return [Requirement(entry.partition("\\")[0].strip()) for entry in entries]


def pins(python: str) -> dict[str, str]:
    here = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    return {r.name: str(r.specifier) for r in locked() if r.marker is None or r.marker.evaluate(here)}


def test_the_pythons_of_the_project_of_ci_and_of_make_are_the_same() -> None:
    served = SpecifierSet(PROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in served] == PYTHONS
    assert WORKFLOWS["tests"]["jobs"]["tests"]["strategy"]["matrix"]["python"] == PYTHONS
    assert " ".join(f"python{version}" for version in PYTHONS) in MAKEFILE
    assert f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]} is needed" in MAKEFILE


def test_one_lock_gives_the_same_packages_on_every_python() -> None:
    first, *others = map(pins, PYTHONS)
    assert all(other == first for other in others)
    assert all(version.startswith("==") for version in first.values())
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")
    given = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    for requirement in map(Requirement, given):
        assert first[canonicalize_name(requirement.name)].removeprefix("==") in requirement.specifier, requirement


@pytest.mark.parametrize("python", ["false", "no-such-python", ""])
def test_another_python_is_refused_with_one_line(tmp_path: Path, python: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    done = subprocess.run(["make", "-s", "install", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python\n" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_workflows_run_what_exists() -> None:
    assert {"audit", "nightly", "tests", "updates"} <= WORKFLOWS.keys()
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    for workflow in WORKFLOWS.values():
        assert set(re.findall(r"\bmake ([\w-]+)", "\n".join(commands(workflow)))) <= targets
    assert ".ci/run" in commands(WORKFLOWS["tests"])
    assert 'make nightly PROFILE="$PROFILE"' in commands(WORKFLOWS["nightly"])
    for pattern in WORKFLOWS["nightly"][True]["pull_request"]["paths"]:  # `on`, which YAML 1.1 reads as true
        assert (ROOT / pattern.removesuffix("/**")).exists(), pattern
    for workflow in ("audit", "nightly", "updates"):
        assert WORKFLOWS[workflow][True].keys() >= {"schedule", "workflow_dispatch"}


def test_only_jobs_that_run_no_code_of_the_project_may_write() -> None:
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {}
        for job in workflow["jobs"].values():
            if "write" in job["permissions"].values():
                steps = "\n".join(step.get("run", "") + step.get("uses", "") for step in job["steps"])
                assert not re.search(r"make |python|\.ci/run|\./", steps)


# The container


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_container_is_built_from_the_lock_without_rights_or_secrets() -> None:
    (base,) = re.findall(r"^FROM (\S+)", dockerfile(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+", base), "a base that does not move by a minor version"
    assert "--no-deps --require-hashes --requirement requirements.lock" in dockerfile()
    users = re.findall(r"^USER (\S+)", dockerfile(), re.MULTILINE)
    assert users == ["1000"], "as a number, which Kubernetes can check"
    assert not re.search(r"(?i)secret_|password|token|--build-arg [A-Z_]*KEY", dockerfile())
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "outputs", "runs", "mlflow.db*", ".dvc/config.local"} <= set(ignored)


def test_hadolint_finds_nothing_and_would() -> None:
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    assert subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True).stdout == ""
    moving = re.sub(r"FROM \S+", "FROM python:latest", dockerfile())
    found = subprocess.run([hadolint, "-"], input=moving, capture_output=True, text=True)
    assert (found.returncode, "DL3007" in found.stdout) == (1, True)
