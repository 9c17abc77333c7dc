"""DVC's experiments: in temporary folders, side by side, with one cache and one MLflow store; and its remotes."""

import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, ReadWriteLock
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.layout import HERE
from pipeline.layout import Workspace as Layout
from pipeline.results import TrialResult
from pipeline.running.mlflow.tracker import Tracker
from pipeline.running.store import address, database_uri
from pipeline.training.claims import Claims
from pipeline.training.losses import refuse_empty
from pipeline.training.plan import WEIGHTS, Plan, read_history
from pipeline.training.progress import Progress
from tests.project import Project
from tests.s3 import s3_server
from tests.test_plan import plan, plans, scored, store
from tests.workspace import Workspace, changed, small_params

EXPERIMENT = ".dvc/tmp/exps/standalone/tmpabc"


# Where an experiment's files lie


@pytest.mark.parametrize("below", ["", "sub"])
def test_an_experiment_has_its_own_results_and_the_cache_of_its_project(tmp_path: Path, below: str) -> None:
    project, root = Layout(tmp_path), tmp_path / EXPERIMENT / below
    experiment = Layout(root)
    assert experiment.trials == project.trials
    assert experiment.tracking_store == project.tracking_store
    assert experiment.folder_id == project.folder_id
    assert experiment.outputs == root / "outputs"
    assert experiment.lock("finetune") == root / ".locks/finetune.lock"
    assert (project.place, experiment.place) == (".", root.relative_to(tmp_path).as_posix())


def test_a_database_is_named_as_seen_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / EXPERIMENT).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / EXPERIMENT)
    assert address("sqlite:///own.db") == database_uri(tmp_path / "own.db")
    assert address(None) == database_uri(tmp_path / "mlflow.db")
    assert address("sqlite:////elsewhere/own.db") == "sqlite:////elsewhere/own.db"
    assert address("http://host:5000") == "http://host:5000"
    monkeypatch.chdir(tmp_path)
    assert address("sqlite:///own.db") == "sqlite:///own.db"


# Drivers that share the trials


@given(st.lists(plans(), min_size=2, max_size=3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_drivers_side_by_side_train_no_trial_twice(todos: list[Plan], chance: random.Random) -> None:
    """Whatever they plan, and whoever is faster: each ends with its whole plan."""
    with tempfile.TemporaryDirectory() as folder:
        root, ran = Path(folder, "trials"), Counter[str]()
        root.mkdir()
        going = [Progress(todo, root, claims=Claims(Path(folder, "locks"))) for todo in todos]
        drivers = [*going]
        while going:
            driver = chance.choice(going)
            if driver.running and chance.random() < 0.5:
                end(driver, chance.choice(sorted(driver.running)), scored(chance.random()))
            elif (trial := driver.next()) is not None:
                ran[trial.key] += 1
            elif not driver.running and not driver.elsewhere:
                going.remove(driver)
        assert set(ran.values()) == {1}
        for driver in drivers:
            refuse_empty(driver)
            assert driver.unfinished() == 0
            assert all(driver.results[trial.key] is not None for trial in driver.trials())


def end(driver: Progress, key: str, result: TrialResult | None) -> None:
    """As the ledger does."""
    store(driver.root, key, result)
    driver.end(key, result)
    assert driver.claims is not None
    driver.claims.drop(key)


def test_a_trial_that_another_driver_lost_or_spoilt_is_trained_here(tmp_path: Path) -> None:
    root, locks = tmp_path / "trials", tmp_path / "locks"
    root.mkdir()
    first, second = (Progress(plan(), root, claims=Claims(locks)) for _ in range(2))
    trial = first.next()
    assert trial is not None
    others = [second.next() for _ in range(3)]
    assert None not in others and trial not in others  # noqa: PT018
    assert (second.next(), second.elsewhere) == (None, 1)
    end(first, trial.key, None)
    assert second.next() == trial
    # Chosen, with weights that are not those of its result.
    third = Progress(plan(), root, claims=Claims(locks))
    assert (third.next(), third.elsewhere) == (None, 4)
    end(second, trial.key, scored(0.9))
    (root / trial.key / WEIGHTS).write_bytes(b"cut")
    for other in others:
        assert other is not None
        end(second, other.key, scored(0.5))
    assert third.next() == trial


# What MLflow is told


def test_the_runs_of_an_experiment_are_the_projects(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it works nobody ends them; what the store lacked of them is sent from the project's folder."""
    tags = {"stage": "finetune", "instance": ""}
    place = Tracker().place
    folder = workspace.folder / EXPERIMENT
    (folder / ".locks").mkdir(parents=True)
    monkeypatch.chdir(folder)
    Path("result.json").write_text("{}")
    with FileLock(HERE.lock("finetune")):
        tracker = Tracker()
        assert tracker.place == place
        run, trial = tracker.open("finetune", tags=tags, params={}), tracker.open("t", tags=tags, params={}, key="k")
        tracker.sender.patience.lose()
        run.log_artifact(Path("result.json"))
        run.log_metrics({"score": 0.5})
        assert list(HERE.unsent.iterdir()) == [workspace.folder / f"runs/tracking/{run.id}.json"]
        monkeypatch.chdir(workspace.folder)
        project = Tracker()
        assert (project.find("k"), project.sync()) == (trial.run_id, (0, 1))
        project.close_abandoned("finetune", "")
        assert project.client.get_run(run.run_id).info.status == "RUNNING"
    project.close_abandoned("finetune", "")
    stored = project.client.get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics, stored.data.tags["place"]) == (
        "KILLED",
        {"score": 0.5},
        EXPERIMENT,
    )
    assert [file.path for file in project.client.list_artifacts(run.run_id)] == ["result.json"]
    assert project.client.get_run(trial.run_id).info.status == "KILLED"


# Real experiments


def start(project: Project, name: str, change: str, *stages: str) -> "subprocess.Popen[str]":
    """Start an experiment in a temporary folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "exp", "run", "--temp", "-n", name, "-S", change, *stages],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trained(log: str) -> int:
    """How many trials an experiment trained itself."""
    found = re.search(r"^(\d+) trials run", log, re.MULTILINE)
    assert found, log
    return int(found[1])


def experiment_project(folder: Path, mlflow_store: Path, changes: dict[str, Any]) -> Project:
    made = Project(folder, mlflow_store, git=True)
    made.write_params(changed(small_params(), {"latency.tasks": [], **changes}))
    made.commit()
    return made


@pytest.mark.cluster
def test_did_my_change_help(tmp_path: Path, mlflow_store: Path) -> None:
    """DVC's own views of two revisions, the second an experiment in a temporary folder that trains nothing."""
    project = experiment_project(tmp_path / "project", mlflow_store, {"seeds": [1, 2], "evaluate.window": [1.0, 1.0]})
    project.repro()
    project.commit()
    experiment = start(project, "faster", "evaluate.window=[1.5,12.0]")
    log, _ = experiment.communicate(timeout=600)
    assert experiment.returncode == 0, log
    assert "Running stage 'finetune'" not in log
    tracker = Tracker(database_uri(project.here.tracking_store))
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.dvc_experiment = 'faster'")
    assert {run.data.tags["stage"] for run in runs} == {"evaluate", "report"}
    before = json.loads((project.here.metrics / "demo-sentences.json").read_text())
    # Metrics: a line for each number of the task that moved.
    shown = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]
    assert {path: entry["data"] for path, entry in shown.items()} == {"outputs/metrics/demo-sentences.json": before}
    moved = json.loads(project.dvc("metrics", "diff", "main", "faster", "--json"))[
        "outputs/metrics/demo-sentences.json"
    ]
    assert moved["speedup"]["old"] == before["speedup"]
    assert moved["speedup"]["diff"] > 0
    points = json.loads(project.dvc("metrics", "diff", "main", "faster", "--json", "--targets", "outputs/points"))
    assert points["outputs/points/demo-sentences/demo-albert/joint/patience.json"]["speedup"]["diff"] > 0
    # Experiments: what moved, first of all, and the setting that moved it.
    table = project.dvc("exp", "show", "--csv", "--only-changed").splitlines()
    columns = table[0].split(",")
    first = {*columns[: columns.index("evaluate.window")]} - {"Experiment", "rev", "typ", "Created", "parent"}
    assert {"speedup"} <= first <= {"score", "low", "high", "speedup", "all_layers", "by"}
    (row,) = [row for row in csv.DictReader(table) if row["Experiment"] == "faster"]
    assert (float(row["speedup"]), row["evaluate.window"]) == (moved["speedup"]["new"], "[1.5, 12.0]")
    # Plots: every curve of both, in one picture.
    for what, revisions in (("show", {"workspace"}), ("diff", {"main", "faster"})):
        project.dvc("plots", what, *(sorted(revisions) if what == "diff" else ()), "-o", what)
        page = (project.folder / what / "index.html").read_text(encoding="utf-8")
        specs = [json.loads(spec) for spec in re.findall(r"var spec = (.*?);\n", page)]
        assert [spec["title"]["text"] for spec in specs] == [
            f"outputs/plots/{kind}/demo-sentences.csv" for kind in ("speed", "exits", "patience")
        ]
        for spec in specs:
            assert {point["rev"] for point in spec["data"]["values"]} == revisions
            assert "DVC_METRIC" not in json.dumps(spec)


@pytest.mark.cluster
def test_weights_that_were_not_selected_stay_while_another_plan_runs(workspace: Workspace) -> None:
    workspace.write_params({"grid.learning_rate": [0.001, 0.002]})
    assert workspace.stage("prepare", "demo-sentences").code == 0
    HERE.claims.mkdir(parents=True)
    with ReadWriteLock(HERE.trials_used, is_singleton=False).read_lock():
        done = workspace.command("-m", "stages.finetune")
        assert done.code == 0, done.err
    assert len(list(HERE.trials.glob(f"*/{WEIGHTS}"))) == 2
    assert workspace.command("-m", "stages.finetune").code == 0
    assert len(list(HERE.trials.glob(f"*/{WEIGHTS}"))) == 1


@pytest.mark.cluster
def test_two_experiments_at_once_share_trials_and_the_store(tmp_path: Path, mlflow_store: Path) -> None:
    """In temporary folders, from nothing: what both plan is trained by one of them."""
    project = experiment_project(tmp_path / "project", mlflow_store, {"grid.learning_rate": [0.001, 0.002]})
    changes = {"one": "training.clip_norm=1.0", "two": "evaluate.window=[1.1,1.5]"}
    started = {name: start(project, name, change, "finetune") for name, change in changes.items()}
    logs = {name: process.communicate(timeout=600)[0] for name, process in started.items()}
    assert all(process.returncode == 0 for process in started.values()), logs
    here = project.here
    keys = {path.name for path in here.trials.iterdir()}
    assert (sum(map(trained, logs.values())), len(keys)) == (2, 2)
    assert [len(read_history(here.trial(key))) for key in keys] == [1, 1]
    tracker = Tracker(database_uri(here.tracking_store))
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert Counter(run.data.tags["trial"] for run in runs if "trial" in run.data.tags) == dict.fromkeys(keys, 1)
    stages = {(run.data.tags["dvc_experiment"], run.data.tags["stage"]) for run in runs}
    assert {("one", "finetune"), ("two", "finetune")} <= stages
    # Nor is anything trained in the project itself.
    assert "Stage 'finetune' is cached - skipping run" in project.dvc("repro", "finetune")


@pytest.mark.cluster
def test_a_queue_and_remotes(tmp_path: Path, mlflow_store: Path) -> None:
    """Queued experiments side by side; what is pushed, to a folder or S3, is a report in a clone without training."""
    project = experiment_project(tmp_path / "project", mlflow_store, {"seeds": [1, 2]})
    project.repro()
    project.commit()
    for name, window in (("a", "[1.0,1.1]"), ("b", "[1.1,1.5]")):
        project.dvc("exp", "run", "--queue", "-n", name, "-S", "seeds=[1,2,3]", "-S", f"evaluate.window={window}")
    project.dvc("queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 600
    while project.dvc("queue", "status").count("Success") < 2:
        assert time.monotonic() < deadline, project.dvc("queue", "status")
        time.sleep(2)
    assert sum(trained(project.dvc("queue", "logs", name)) for name in "ab") == 1
    assert len(list(project.here.trials.iterdir())) == 3
    project.dvc("exp", "apply", "a")
    assert project.repro() == []
    project.dvc("remote", "add", "disk", str(tmp_path / "remote"))
    with s3_server("results") as variables:
        project.environment |= variables
        project.dvc("remote", "add", "-d", "bucket", "s3://results/dvc")
        project.commit()
        for remote in ("disk", "bucket"):
            project.dvc("push", "-q", "-r", remote)
            clone = Project.clone(project, tmp_path / remote)
            clone.dvc("pull", "-q", "-r", remote)
            assert clone.page() == project.page()
            assert json.loads(clone.dvc("metrics", "show", "--json")) == json.loads(
                project.dvc("metrics", "show", "--json")
            )
        pulled = Project.clone(project, tmp_path / "pulled")
        assert pulled.repro("--pull") == []
        assert pulled.page() == project.page()
        assert not pulled.here.trials.exists()
