"""The shape of the code and of dvc.yaml: who imports whom, what stays light, what is tracked."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.identity.imports import ROOT, imported_files, imported_names
from pipeline.layout import Workspace
from pipeline.params import Params, load_params
from pipeline.running.tracked import stage_settings
from tests.workspace import changed
from tools.write_deps import code_deps

LAYERS = (
    ("errors", "settings", "layout", "storage", "lean"),
    ("results",),
    ("identity",),
    ("evaluation",),
    ("theory",),
    ("tasks",),
    ("models",),
    ("serving",),
    ("training",),
    ("attacks",),
    (
        "running/settings",
        "running/address",
    ),  # a block, as every subject has one; the stages' life is above params, which it reads
    ("params",),
    ("running",),
    ("report",),
    ("commands",),
    ("__init__", "__main__"),
)
"""Subjects of pipeline/, lowest first. A subject imports from its own layer and lower ones; docs/design/house.md."""

HEAVY = {"torch", "torchvision", "transformers", "datasets", "ray", "mlflow", "textattack"}
SLOW = HEAVY | {
    "accelerate",
    "flair",
    "matplotlib",
    "nltk",
    "pandas",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "torch._dynamo",
}
"""Each takes from a fifth of a second to ten seconds to import."""
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def files_of(package: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def layer_of(path: Path) -> int:
    inside = path.relative_to("pipeline").with_suffix("")
    for name in (inside.as_posix(), inside.parts[0]):
        for i, subjects in enumerate(LAYERS):
            if name in subjects:
                return i
    raise AssertionError(f"{path}: give the new subject a place in LAYERS")


def test_there_are_about_fifteen_subjects() -> None:
    subjects = {path.relative_to("pipeline").parts[0].removesuffix(".py") for path in files_of("pipeline")}
    assert subjects == {subject for layer in LAYERS for subject in layer if "/" not in subject}
    assert len(subjects - {"__init__", "__main__"}) <= 18


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


UNSAFE = (
    r"import pickle|pickle\.|cloudpickle|torch\.load\(|allow_pickle=True|weights_only=False|yaml\.load\(|"
    r"\beval\(\w|\bexec\(|shell=True"
)
ADVICE = '"for k, v in torch.load(p, weights_only=True).items()}, "'
"""A line of the message that refuses pickled weights: what a person may run, and the code here does not."""


@pytest.mark.parametrize("package", ["pipeline", "stages", "ray_jobs"])
def test_nothing_is_unpickled_or_run_from_text(package: str) -> None:
    """Whoever can write into a cache, a remote or a source would run code here."""
    found = [
        f"{path}: {line.strip()}"
        for path in files_of(package)
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines()
        if re.search(UNSAFE, line) and not re.search(r"\.eval\(|^\s*(#|\"\"\")", line) and line.strip() != ADVICE
    ]
    assert found == []


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


@pytest.mark.parametrize(("library", "home"), [("ray", "pipeline/running/ray"), ("mlflow", "pipeline/running/mlflow")])
def test_one_place_imports(library: str, home: str) -> None:
    importers = {
        path.as_posix()
        for package in ("pipeline", "stages")
        for path in files_of(package)
        if any(name.partition(".")[0] == library for name in imported_names(path))
    }
    assert importers
    assert all(path == home or path.startswith(f"{home}/") for path in importers)


# What stays light


def loaded_by(code: str, watched: Set[str] = HEAVY, folder: Path = ROOT) -> set[str]:
    """Libraries of those watched in sys.modules after the code ran in a fresh process."""
    tail = f"\nimport sys\nprint(*({set(watched)!r} & sys.modules.keys()))"
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
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
    commands = [["--help"], *(["list", what] for what in ("criteria", "tasks", "backbones", "methods", "profiles"))]
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


LOADS: dict[str, tuple[str, set[str]]] = {
    "a run in MLflow": (
        "from pipeline.running.mlflow.tracker import Tracker; Tracker()",
        {"mlflow", "scipy", "sqlalchemy"},
    ),
    "preparing texts": ("import pipeline.tasks.prepare, pipeline.models.encoders.tokenizer", set()),
    "a text model": (
        "from pipeline.models.encoders.families import FAMILIES, config_class, model_class\n"
        "for family in FAMILIES.values(): model_class(family)(config_class(family)(num_hidden_layers=1))\n"
        "import pipeline.models.trace_cache",
        {"torch", "torch._dynamo", "torchvision", "transformers", "accelerate"},
    ),
    "an image model": (
        "from pipeline.models.residual import ResNet; ResNet(8, 4, (0.5,) * 3, (0.5,) * 3, 'six')\n"
        "import pipeline.models.trace_cache",
        {"torch"},
    ),
    "training": ("import pipeline.training.trial, pipeline.training.fit, pipeline.training.optimisation", {"torch"}),
    "timing": ("import pipeline.models.latency", {"torch"}),
    "evaluating": ("import pipeline.evaluation.sweep, pipeline.evaluation.diagnosis, pipeline.report.collect", set()),
}
"""What a stage does, and the slow libraries that it may load for it: what is added here every such stage pays."""


@pytest.mark.slow
@pytest.mark.parametrize("what", LOADS)
def test_a_stage_loads_no_more_than_it_needs(what: str, tmp_path: Path) -> None:
    code, needed = LOADS[what]
    assert loaded_by(code, SLOW, tmp_path) <= needed


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
    assert code == code_deps(name), "run `python -m tools.write_deps`"


@pytest.mark.parametrize("name", GRAPH)
def test_the_command_runs_the_stage_of_that_name(name: str) -> None:
    assert GRAPH[name]["cmd"].split(" $")[0] == f"python -m stages.{name}"


def test_what_a_stage_reads_another_writes() -> None:
    outs = [out for stage in GRAPH.values() for kind in ("outs", "metrics") for out in paths(stage.get(kind, []))]
    made = [re.sub(r"\$\{\w+\}", "*", out) for out in outs]
    assert len(made) == len(set(made))
    for name, stage in GRAPH.items():
        for dep in (d for d in stage["deps"] if not d.startswith(("pipeline/", "stages/")) and d != "params.yaml"):
            path = re.sub(r"\$\{\w+\}", "*", dep)
            assert any(out == path or out.startswith(path + "/") or path.startswith(out + "/") for out in made), (
                f"{name} reads {dep}, which no stage writes"
            )


def settings_of(**changes: Any) -> dict[tuple[str, str], Any]:
    """What each stage hangs on, by stage and task, of the demo's params with dotted settings changed."""
    raw = yaml.safe_load((ROOT / "profiles/demo.yaml").read_text(encoding="utf-8"))
    params = Params.model_validate(changed(raw, changes))
    return {(stage, task): settings for stage, task, settings in stage_settings(params, Workspace(Path("no-run")))}


def hangs_on(**changes: Any) -> set[str]:
    """Stages (stage@task where not all tasks are meant) that a change re-runs."""
    before, after = settings_of(), settings_of(**changes)
    return {f"{stage}@{task}" if task else stage for stage, task in before if before[stage, task] != after[stage, task]}


TEXTS = ("demo-sentences", "demo-pairs", "demo-similarity")
ALL = (*TEXTS, "demo-images")


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"evaluate.window": [1.5, 2.0]}, {f"evaluate@{task}" for task in TEXTS}),
        ({"images.window": [1.5, 2.0]}, {"evaluate@demo-images"}),
        (
            {"evaluate.criteria": {"patience": {}, "confidence": {}, "entropy": {}}},
            {f"evaluate@{task}" for task in ALL},
        ),
        ({"seeds": [1, 2, 3]}, {"finetune"}),
        ({"grid.batch_size": [32]}, {"finetune"}),
        ({"training.epochs": 9}, {"finetune"}),
        ({"images.training": {"epochs": 9}}, {"finetune"}),
        ({"methods": ["single_exit", "joint", "two_stage"]}, {"finetune", "report"}),
        ({"latency.rows": 7}, {"latency@demo-sentences"}),
        ({"latency.tasks": ["demo-sentences", "demo-images"]}, {"latency@demo-images", "report"}),
        ({"attack.seed": 3}, {"attack@demo-sentences"}),
        ({"attack.tasks": {}}, {"attack@demo-sentences", "report"}),
        ({"simulate.samples": 9}, {"simulate"}),
        ({"runtime.threads": 2, "runtime.device": "cpu"}, set()),
        (
            {"evaluate.choose": {"rule": "window"}, "attack.goal": "misclassify", "images.grid.learning_rate": [0.1]},
            set(),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_change_re_runs_what_hangs_on_it(change: dict[str, Any], stages: set[str]) -> None:
    assert hangs_on(**change) == stages


def test_protocol_and_backbones_re_run_what_they_touch() -> None:
    every = {f"{stage}@{task}" for stage in ("prepare", "evaluate") for task in ALL}
    assert hangs_on(protocol="paper") == {*every, "finetune"}
    with_more = {"backbones": {"demo-albert": {}, "resnet14": {"width": 8}, "minilm": {}}}
    assert hangs_on(**with_more) == {*(f"prepare@{task}" for task in TEXTS), "finetune"}
    wider = {"backbones": {"demo-albert": {}, "resnet14": {"width": 16}}}
    assert hangs_on(**wider) == {"finetune"}


def test_every_stage_has_its_settings_in_the_graph() -> None:
    written = {stage for stage, _ in settings_of()}
    for name, stage in GRAPH.items():
        wanted = [dep for dep in stage["deps"] if dep.startswith("outputs/settings/")]
        suffix = "/${key}.json" if "${key}" in stage["cmd"] else ".json"
        assert wanted == ([f"outputs/settings/{name}{suffix}"] if name in written else []), name
    assert set(GRAPH) - written == {"settings", "trace"}


# Settings


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_profile_is_valid(profile: Path) -> None:
    assert load_params(profile).tasks


def test_the_demo_is_what_runs_by_default() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles/demo.yaml").read_bytes()


def test_the_graph_is_plain_text_for_any_machine() -> None:
    text = json.dumps(GRAPH)
    assert not re.search(r'"/|~/', text)
