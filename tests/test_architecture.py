"""The shape of the code and of dvc.yaml: who imports whom, what stays light, what is tracked."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.identity.imports import ROOT, imported_files, imported_names
from pipeline.params import load_params
from tests.write_deps import code_deps

LAYERS = (
    ("errors.py", "settings.py", "files.py", "hub.py"),
    ("metrics.py", "intervals.py", "theory.py", "cost.py", "vision_cost.py"),
    ("traces.py", "criteria/*", "crossing.py"),
    ("replay.py", "choosing.py", "diagnosis.py", "operating.py"),
    ("tasks.py", "backbones/__init__.py", "methods/__init__.py"),  # names, no recipes and no models
    ("params.py", "predictions.py"),
    ("data/*",),
    ("backbones/*", "multi_exit.py"),
    ("live.py", "latency.py", "recording.py", "image_recording.py"),
    ("methods/*", "train.py"),
    ("trials.py", "text_trials.py", "image_trials.py"),
    ("attacks/*",),
    ("tuning.py",),
    ("tracking.py",),
    ("stage.py", "observer.py"),
    ("report/*",),
    ("__init__.py", "__main__.py", "regression.py", "replay_commands.py", "submission.py"),
)
"""Files of pipeline/, lowest first. A file imports from its own layer and lower ones; an exact name beats a pattern."""

HEAVY = {"torch", "torchvision", "transformers", "datasets", "ray", "mlflow", "textattack"}
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def files_of(package: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def layer_of(path: Path) -> int:
    name = path.relative_to("pipeline").as_posix()
    exact = [i for i, patterns in enumerate(LAYERS) if name in patterns]
    found = exact or [i for i, patterns in enumerate(LAYERS) if any(fnmatch(name, p) for p in patterns)]
    assert found, f"{path}: give the new module a place in LAYERS"
    return found[0]


# Who imports whom


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path} imports {other}"
        for path in files_of("pipeline")
        for other in imported_files(path, for_types=False)
        if other.parts[0] != "pipeline" or layer_of(other) > layer_of(path)
    ]
    assert wrong == []


def test_no_module_reaches_itself() -> None:
    # Also within a layer. Raises CycleError, which names the modules.
    TopologicalSorter({path: imported_files(path, for_types=False) for path in files_of("pipeline")}).prepare()


@pytest.mark.parametrize("package", ["stages", "ray_jobs"])
def test_stages_and_jobs_import_the_library_and_not_each_other(package: str) -> None:
    allowed = {"pipeline", package} if package == "ray_jobs" else {"pipeline"}
    wrong = [
        f"{path} imports {other}"
        for path in files_of(package)
        for other in imported_files(path)
        if other.parts[0] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "home"), [("ray", "pipeline/running/ray/tune.py"), ("mlflow", "pipeline/running/mlflow.py")]
)
def test_one_file_imports(library: str, home: str) -> None:
    importers = {
        path.as_posix()
        for package in ("pipeline", "stages")
        for path in files_of(package)
        if any(name.partition(".")[0] == library for name in imported_names(path))
    }
    assert importers == {home}


# What stays light


def loaded_by(code: str) -> set[str]:
    """Heavy libraries in sys.modules after the code ran in a fresh process."""
    tail = f"\nimport sys\nprint(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code + tail], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_replay_needs_no_heavy_library() -> None:
    assert (
        loaded_by(
            "import pipeline.evaluation.criteria, pipeline.evaluation.trace, pipeline.evaluation.sweep, pipeline.theory"
        )
        == set()
    )


def test_the_command_line_and_every_stage_start_light() -> None:
    stages = ", ".join(f"stages.{path.stem}" for path in files_of("stages") if path.stem != "__init__")
    commands = [["--help"], *(["list", what] for what in ("criteria", "tasks", "backbones", "methods"))]
    code = f"""
import runpy, sys
for arguments in {commands!r}:
    sys.argv = ["pipeline", *arguments]
    try:
        runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code
import {stages}
"""
    assert loaded_by(code) == set()


# The graph


def stages_of_graph() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and definition of every stage, foreach ones as their template."""
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for name, stage in graph["stages"].items():
        yield name, stage.get("do", stage)


GRAPH = dict(stages_of_graph())


def paths(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_the_graph_has_the_stages_that_there_are() -> None:
    assert set(GRAPH) == {path.stem for path in files_of("stages")} - {"__init__"}


@pytest.mark.parametrize("name", GRAPH)
def test_code_dependencies_are_the_import_graph(name: str) -> None:
    code = [dep for dep in GRAPH[name]["deps"] if dep.startswith(("pipeline/", "stages/"))]
    assert code == code_deps(name), "run `python -m tests.write_deps`"


@pytest.mark.parametrize("name", GRAPH)
def test_the_command_runs_the_stage_of_that_name(name: str) -> None:
    assert GRAPH[name]["cmd"].split(" $")[0] == f"python -m stages.{name}"


def test_what_a_stage_reads_another_writes() -> None:
    outs = [out for stage in GRAPH.values() for kind in ("outs", "metrics") for out in paths(stage.get(kind, []))]
    made = [re.sub(r"\$\{\w+\}", "*", out) for out in outs]
    assert len(made) == len(set(made))
    for name, stage in GRAPH.items():
        for dep in (d for d in stage["deps"] if not d.startswith(("pipeline/", "stages/"))):
            path = re.sub(r"\$\{\w+\}", "*", dep)
            assert any(out == path or out.startswith(path + "/") or path.startswith(out + "/") for out in made), (
                f"{name} reads {dep}, which no stage writes"
            )


def tracked(stage: dict[str, Any], raw: dict[str, Any]) -> Iterator[str]:
    """Dotted names of a stage's params, with its instances filled in."""
    for entry in stage.get("params", []):
        if "${" in entry:
            block, _, _ = entry.partition(".${")
            holder: Any = raw
            for part in block.split("."):
                holder = holder[part]
            yield from (f"{block}.{name}" for name in holder)
        else:
            yield entry


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_params_that_the_graph_tracks_exist(profile: Path) -> None:
    raw = yaml.safe_load(profile.read_text(encoding="utf-8"))
    for name, stage in GRAPH.items():
        for entry in tracked(stage, raw):
            holder: Any = raw
            for part in entry.split("."):
                assert isinstance(holder, dict) and part in holder, f"{name}: {profile.name} has no {entry}"  # noqa: PT018
                holder = holder[part]


def test_all_that_changes_results_is_tracked_and_runtime_is_not() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    blocks = {entry.partition(".")[0] for stage in GRAPH.values() for entry in tracked(stage, raw)}
    assert blocks == set(raw) - {"runtime"}


def test_each_stage_tracks_only_what_it_uses() -> None:
    # A change of `evaluate` re-runs evaluate, and report through its outputs; a change of `attack`, attack and report.
    def stages_tracking(block: str) -> set[str]:
        return {
            name
            for name, stage in GRAPH.items()
            if any(entry.partition(".")[0] == block for entry in stage.get("params", []))
        }

    assert stages_tracking("evaluate") == {"evaluate"}
    assert stages_tracking("grid") == stages_tracking("seeds") == stages_tracking("methods") == {"finetune"}
    assert stages_tracking("training") == {"finetune"}
    assert stages_tracking("simulate") == {"simulate"}
    assert stages_tracking("cifar") == {"cifar"}


# Settings


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_profile_is_valid(profile: Path) -> None:
    assert load_params(profile).tasks


def test_the_demo_is_what_runs_by_default() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles/demo.yaml").read_bytes()


def test_the_graph_is_plain_text_for_any_machine() -> None:
    text = json.dumps(GRAPH)
    assert not re.search(r'"/|~/', text)
