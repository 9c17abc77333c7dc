"""The real graph to its end: `dvc repro` on tiny data, with all empty that may be, and with each profile shrunk."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.identity.imports import ROOT
from pipeline.params import load_params
from pipeline.results import Attack, Evaluated, Latency, Manifest, TraceIndex, Trials
from pipeline.storage import write_text
from pipeline.tasks.task import Task
from tests.conftest import POINTERS
from tests.project import Project

EVERY_PUSH = ("paper",)
"""The profile that has every stage, images, attacks and most methods; the others run with the clusters."""
PROFILES = [
    pytest.param(name, marks=[] if name in EVERY_PUSH else [pytest.mark.cluster])
    for name in sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
]
SHORT = {
    "grid": {"batch_size": [8], "learning_rate": [0.001]},
    "seeds": [1],
    "training": {"epochs": 1, "stop_after": 1},
}
SHORT_IMAGES = {"grid": {"batch_size": [8], "learning_rate": [0.1]}, "training": {"epochs": 1}}


@pytest.fixture
def project(tmp_path: Path, mlflow_store: Path) -> Project:
    return Project(tmp_path / "project", mlflow_store)


def own_rows(folder: Path, task: Task | None = None) -> dict[str, Any]:
    """A source of 24 rows of a task, as files; of reviews where none is given."""
    text = task.text if task else ("review",)
    label = task.label if task else "verdict"
    names = task.label_names if task else ("bad", "good")
    words = ("dull", "fine", "odd", "grand")
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 24), ("held", 12)):
        lines = [",".join((*text, label))]
        for i in range(count):
            answer = names[i % len(names)] if names else str(i % 5)
            lines.append(",".join((*(f"a {words[i % len(words)]} film number {i}" for _ in text), answer)))
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"train": str(folder / "train.csv"), "report": {"held": str(folder / "held.csv")}}


def mirror_of_tiny_models(root: Path, hubs: set[str]) -> Path:
    """A hub mirror in which every model is a BERT of two narrow layers."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "number", "dull", "fine", "odd", "grand"]
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16
    )
    for hub in hubs:
        folder = root / "models" / hub
        folder.mkdir(parents=True)
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
        BertModel(config).save_pretrained(folder)
    return root


@pytest.mark.slow
def test_one_task_of_own_data_and_what_comes_after(project: Project, tmp_path: Path, mlflow_store: Path) -> None:
    """Nothing but a task, and settings that make it short: a report. Then a seed more, then a second clone."""
    mirror = mirror_of_tiny_models(tmp_path / "hub", {"sentence-transformers/all-MiniLM-L6-v2"})
    project.environment["HUB_MIRROR"] = str(mirror)
    own = {"text": ["review"], "label": "verdict", "label_names": ["bad", "good"], "rows": {"selection": 8}}
    params = {"tasks": {"own": {**own, "source": own_rows(tmp_path / "rows")}}, **SHORT}
    project.write_params(params)
    assert project.repro() == [
        "settings", "prepare@own", "finetune", "trace@own", "evaluate@own", "export@own", "latency@own", "attack@own",
        "simulate", "report",
    ]  # fmt: skip
    page, here = project.page(), project.here
    for remedy in ("no task under latency.tasks", "no task under attack.tasks"):
        assert remedy in page, remedy
    assert {row.criterion for row in Evaluated.read(here.evaluated("own"), "").rows} == {
        None, "patience", "confidence", "entropy",
    }  # fmt: skip
    assert Latency.read(here.latency("own"), "").measured is None
    assert Attack.read(here.attack("own"), "").attacked == ()
    assert project.repro() == []
    # A default written out is no change of anything but the file.
    project.write_params({**params, "protocol": "holdout", "latency": {"tasks": []}})
    assert project.repro() == ["settings"]
    # A seed: its trials run and are recorded; what is there stays.
    before = {path.name: path.stat().st_mtime_ns for path in here.recorded.iterdir()}
    project.write_params({**params, "seeds": [1, 2]})
    assert project.repro()[:3] == ["settings", "finetune", "trace@own"]
    after = {path.name: path.stat().st_mtime_ns for path in here.recorded.iterdir()}
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * len(before)
    assert len(TraceIndex.read(here.trace_index("own"), "").traces) == len(after)
    assert len(Trials.read(here.trials_table, "").trials) == 4
    # A second clone reports from a remote, without the cache.
    project.dvc("remote", "add", "-d", "disk", str(tmp_path / "remote"))
    project.dvc("push", "-q")
    second = Project(tmp_path / "second", mlflow_store)
    second.environment["HUB_MIRROR"] = str(mirror)
    for name in ("params.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(project.folder / name, second.folder / name)
    second.dvc("pull", "-q")
    assert second.repro() == ["settings"], "its links to local files are not pushed"
    assert second.repro() == []
    assert second.page() == project.page()
    third = Project(tmp_path / "third", mlflow_store)
    for name in ("params.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(project.folder / name, third.folder / name)
    assert third.repro("--pull") == []
    assert third.page() == project.page()
    # Nor does a machine without the data and the models run anything.
    shutil.move(tmp_path / "rows", tmp_path / "moved")
    shutil.rmtree(second.here.local_files)
    del second.environment["HUB_MIRROR"]
    assert second.repro() == ["settings"]
    assert not second.here.trials.exists()


def test_local_files_are_dependencies(project: Project, tmp_path: Path) -> None:
    """Own data, a local model, the mirror: each is one by its content, wherever it lies."""
    mirror = mirror_of_tiny_models(tmp_path / "hub", {"someone/encoder", "other/encoder"})
    own_rows(mirror / "datasets/someone/reviews")
    (mirror / "datasets/someone/reviews/held.csv").rename(mirror / "datasets/someone/reviews/test.csv")
    (mirror / "models/other/encoder").rename(tmp_path / "encoder")
    project.environment["HUB_MIRROR"] = str(mirror)
    about = {"text": ["review"], "label": "verdict", "label_names": ["bad", "good"], "rows": {"selection": 8}}
    tasks = {
        "own": {**about, "source": own_rows(project.folder / "rows")},
        "hub": {**about, "source": {"hub": "someone/reviews", "report": {"held": "test"}}},
    }
    hubs = {"named": {"hub": "someone/encoder"}, "local": {"hub": str(tmp_path / "encoder")}}
    params = {"tasks": tasks, "backbones": hubs, **SHORT}
    project.write_params(params)

    def ran() -> list[str]:
        first, *others = re.findall(r"^Running stage '([^']+)'", project.dvc("repro", "prepare"), re.M) or [""]
        return [first, *sorted(others)]

    assert ran() == ["settings", "prepare@hub", "prepare@own"]
    assert ran() == [""]
    train = project.folder / "rows/train.csv"
    train.write_text(train.read_text() + "a fine film,good\n")
    assert ran() == ["settings", "prepare@own"]
    assert Manifest.read(project.here.manifest("own"), "").splits["train"].rows == 17
    with (mirror / "datasets/someone/reviews/train.csv").open("a") as file:
        file.write("a fine film,good\n")
    assert ran() == ["settings", "prepare@hub"]
    settings = project.here.stage_settings("finetune")
    before = json.loads(settings.read_text())["weights"]
    for folder in (mirror / "models/someone/encoder", tmp_path / "encoder"):
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"type_vocab_size": 2', '"type_vocab_size": 3'))
        assert ran() == ["settings", "prepare@hub", "prepare@own"]
    after = json.loads(settings.read_text())["weights"]
    assert all(after[name] != before[name] for name in ("named", "local"))
    # The same content at another place is no change.
    (project.folder / "rows").rename(project.folder / "moved")
    for split in ("train", "report"):
        source = tasks["own"]["source"]
        source[split] = json.loads(json.dumps(source[split]).replace("/rows/", "/moved/"))
    project.write_params(params)
    assert ran() == ["settings", "prepare@own"], "its path is in its manifest"
    # Files that a task no longer has are no file of the user's: they are left alone.
    project.write_params({**params, "tasks": {"hub": tasks["hub"]}})
    assert ran() == ["settings"]
    assert sorted(path.name for path in (project.folder / "moved").iterdir()) == ["held.csv", "train.csv"]


SLOW = """
import time
from pathlib import Path
from pipeline.running.stage import run_stage

def main(stage):
    Path("began").touch()
    end = time.monotonic() + 200
    while not Path("go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    stage.write_text("outputs/simulate/simulate.json", "made")

run_stage("simulate", main, per_task=False)
"""
"""The stage `simulate`, which waits."""


def test_nothing_is_removed_beside_a_stage_that_runs(project: Project) -> None:
    """DVC removes a stage's outputs before it starts it: not those of one that runs, whoever started it."""
    images = {"tasks": {"demo-images": {"rows": {"train": 40, "selection": 12, "report": 12}}}}
    project.write_params({**images, "backbones": {"resnet8": {"width": 4}}, "images": SHORT_IMAGES})
    project.dvc("repro", "-q", "settings")
    graph, output = project.folder / "dvc.yaml", project.here.simulation
    (project.folder / "slow.py").write_text(SLOW)
    graph.write_text(graph.read_text().replace("python -m stages.simulate", "python slow.py"))
    write_text(output, "before")
    settings = files_of(project.here.settings)

    def refused(*stages: str) -> None:
        done = project.run("repro", "-f", *stages)
        assert done.returncode != 0
        assert re.search(r"is busy, it is being blocked by:\n +\(PID \d+\): ", done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        assert (output.read_text(), files_of(project.here.settings)) == ("before", settings)

    # Started by hand.
    stage = began(project, sys.executable, "slow.py")
    refused("-s", "simulate")
    refused("simulate")
    project.dvc("status", "simulate")  # who only reads may
    stage.kill()
    stage.wait(30)
    project.dvc("repro", "-q", "-f", "-s", "settings")  # what was killed is no reader
    settings = files_of(project.here.settings)
    # It outlived its DVC.
    output.unlink()
    dvc = began(project, sys.executable, "-m", "dvc", "repro", "-s", "simulate")
    write_text(output, "before")
    refused("-s", "simulate")
    stages = psutil.Process(dvc.pid).children(recursive=True)
    dvc.kill()
    dvc.wait(30)
    refused("-s", "simulate")
    (project.folder / "go").touch()
    psutil.wait_procs(stages, timeout=60)
    assert output.read_text() == "made"
    project.dvc("repro", "-f", "-s", "simulate")


def began(project: Project, *command: str) -> "subprocess.Popen[bytes]":
    """Start a command that runs the stage, and wait until it does."""
    (project.folder / "began").unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=project.folder, env=project.environment)
    deadline = time.monotonic() + 120
    while not (project.folder / "began").exists():
        assert process.poll() is None and time.monotonic() < deadline  # noqa: PT018
        time.sleep(0.1)
    return process


def files_of(folder: Path) -> dict[Path, int]:
    """The files below a folder, and when each was made."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("data/own", "data/own: holds files that no run made, and task 'own' writes its data there; move them"),
        ("data/other/rows", "tasks.own.source.train: data/other/rows/train.csv lies in other, which the run writes"),
        ("outputs/rows", "tasks.own.source.train: outputs/rows/train.csv lies in outputs, which the run writes"),
    ],
)
def test_files_that_a_run_would_remove_are_refused(project: Project, place: str, says: str) -> None:
    own_rows(project.folder / place)
    source = {"train": f"{place}/train.csv", "report": {"held": f"{place}/held.csv"}}
    task = {"source": source, "text": ["review"], "label": "verdict", "label_names": ["bad", "good"]}
    project.write_params({"tasks": {"own": task, **({"other": task} if "other" in place else {})}})
    if "other" in place:
        project.here.manifest("other").write_text("{}")
    done = project.run("repro")
    assert done.returncode != 0
    assert says in done.stderr
    assert sorted(path.name for path in (project.folder / place).iterdir()) == ["held.csv", "train.csv"]


def test_a_file_that_is_not_there_is_refused_before_all(project: Project) -> None:
    source = {"train": "rows/train.csv", "report": {"held": "rows/held.csv"}}
    task = {"source": source, "text": ["review"], "label": "verdict", "label_names": ["bad", "good"]}
    project.write_params({"tasks": {"own": task}})
    done = project.run("repro")
    assert done.returncode != 0
    assert "settings: tasks.own.source.train: 'rows/train.csv': no such file; check the path" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in project.here.outputs.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_an_image_task_with_one_method_and_nothing_else(project: Project) -> None:
    rows = {"train": 40, "selection": 12, "report": 12}
    project.write_params(
        {"tasks": {"demo-images": {"rows": rows}}, "backbones": {"resnet8": {"width": 4}}, "methods": ["single_exit"]}
        | {"seeds": [1], "images": SHORT_IMAGES, "latency": {"tasks": []}, "attack": {"tasks": {}}}
        | {"simulate": {"patiences": [], "samples": 10}}
    )
    assert project.repro()[-1] == "report"
    page = project.page()
    for remedy in ("latency.tasks", "attack.tasks", "methods"):
        assert remedy in page, remedy


def shrunk(profile: str, tmp_path: Path) -> tuple[dict[str, Any], set[str]]:
    """A profile on tiny rows and models: of each modality one task and one backbone, but all methods and criteria. And
    the hub names of its backbones."""
    raw = yaml.safe_load((ROOT / f"profiles/{profile}.yaml").read_text(encoding="utf-8"))
    params = load_params(ROOT / f"profiles/{profile}.yaml")
    tasks: dict[str, Any] = {}
    for task in map(params.task, raw["tasks"]):
        kinds = [params.task(name).kind for name in tasks if params.task(name).modality == task.modality]
        if task.kind in kinds:
            continue
        if task.modality == "image":
            tasks[task.name] = {"rows": {"train": 40, "selection": 12, "report": 12}}
        else:
            source = own_rows(tmp_path / task.name, task)
            about = {"text": list(task.text), "label": task.label, "metrics": list(task.metrics)}
            tasks[task.name] = {**about, "source": source, "rows": {"selection": 8}, "max_length": 32}
            if task.kind == "classification":
                tasks[task.name]["label_names"] = list(task.label_names)
    if any(params.task(name).modality == "image" for name in tasks):
        images = next(name for name in tasks if params.task(name).modality == "image")
        tasks["demo-images"] = tasks.pop(images)
    backbones: dict[str, Any] = {}
    for spec in map(params.backbone, raw["backbones"]):
        if spec.modality not in {params.backbone(name).modality for name in backbones}:
            backbones[spec.name] = {"width": 4} if spec.modality == "image" else {}
    if "resnet56" in backbones or "resnet20" in backbones:
        backbones = {name: value for name, value in backbones.items() if not name.startswith("resnet")}
        backbones["resnet8"] = {"width": 4}
    hubs = {hub for name in backbones if name in raw["backbones"] and (hub := params.backbone(name).hub)}
    attacked = [name for name in raw["attack"]["tasks"] if name in tasks]
    raw |= {"tasks": tasks, "backbones": backbones, **SHORT}
    if "demo-images" in tasks:
        raw["images"] = {**(raw.get("images") or {}), **SHORT_IMAGES}
    raw["latency"] |= {"tasks": [name for name in raw["latency"]["tasks"] if name in tasks], "rows": 4, "repeats": 1}
    raw["attack"] |= {"tasks": {name: {"examples": 2} for name in attacked}, "resources": "demo", "max_queries": 20}
    raw["simulate"] |= {"samples": 100, "step": 0.25}
    return raw, hubs


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_shrunk_to_seconds(profile: str, project: Project, tmp_path: Path) -> None:
    params, hubs = shrunk(profile, tmp_path / "rows")
    project.environment["HUB_MIRROR"] = str(mirror_of_tiny_models(tmp_path / "hub", hubs))
    project.write_params(params)
    ran = project.repro()
    assert ran[-1] == "report"
    assert {stage.partition("@")[2] for stage in ran if "@" in stage} == set(params["tasks"])
    for name in params["tasks"]:
        methods = {row.method for row in Evaluated.read(project.here.evaluated(name), "").rows}
        assert methods <= set(params["methods"])
        assert ("joint" in methods) == ("joint" in params["methods"])
        measured = Latency.read(project.here.latency(name), "").measured
        assert (measured is not None) == (name in params["latency"]["tasks"])
        attacked = Attack.read(project.here.attack(name), "").attacked
        assert (attacked != ()) == (name in params["attack"]["tasks"])


@pytest.mark.slow
@pytest.mark.parametrize("git", [False, True])
def test_the_first_command_of_the_readme_in_a_copy_with_and_without_git(tmp_path: Path, git: bool) -> None:
    """As a zip is; DVC refuses such a folder until it is told."""
    for name in ("pipeline", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".dvc").mkdir()
    for name in ("Makefile", "requirements.lock", "params.yaml", ".dvc/config"):
        shutil.copy(ROOT / name, tmp_path / name)
    settings = {"cmd": "python -m stages.settings", "deps": ["params.yaml"], "outs": ["outputs/settings"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"settings": settings}}))
    (tmp_path / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (tmp_path / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (tmp_path / ".venv/.installed").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*POINTERS, "GIT_"))}
    environment = kept | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    if git:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, env=environment, check=True)
    done = subprocess.run(["make", "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Report: {tmp_path}/outputs/report/index.html" in done.stdout
    assert (tmp_path / "outputs/settings/finetune.json").is_file()
    assert (tmp_path / ".dvc/config.local").is_file() != git
