"""A job on a cluster that shares only a store with the submitter: stopped, submitted again, its results at home."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from pipeline.errors import StorageError
from pipeline.identity.imports import ROOT
from pipeline.layout import Workspace
from pipeline.params import load_params
from pipeline.results import Trials
from pipeline.running.address import parse_address
from pipeline.running.merge import left_behind
from pipeline.running.storage import ObjectStorage
from pipeline.storage import file_hash
from ray_jobs import entry
from ray_jobs.results import bring, come_home, record_of, send
from tests.ray_cluster import hiding, ray_cluster
from tests.s3 import s3_server
from tests.test_ray_jobs import git
from tests.workspace import changed, small_params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server("bucket") as variables:
        yield variables


def checkout(folder: Path) -> Path:
    """The project with a short plan of four trials, committed."""
    folder.mkdir()
    for name in ("pipeline", "stages", "ray_jobs", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    few = {"grid.learning_rate": [0.001, 0.002, 0.003], "seeds": [1, 2], "latency.tasks": [], "training.epochs": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(changed(small_params(), few), sort_keys=False))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "test")
    return folder


@pytest.mark.cluster
def test_a_job_comes_home_through_the_store(
    tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.job_submission import JobSubmissionClient

    project = checkout(tmp_path / "project")
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    storage = ObjectStorage(parse_address("s3://bucket/jobs"))
    prefix = hiding(project, *(ROOT / name for name in ("pipeline", "stages", "ray_jobs", "tests")))
    with ray_cluster(cpus=0, variables=s3, prefix=prefix) as cluster:
        cluster.add_node(prefix=prefix)
        cluster.add_node(prefix=prefix)
        environment = cluster.environment | {"EARLY_EXIT_STORAGE": "s3://bucket/jobs"}
        submit = [sys.executable, "-m", "ray_jobs.submit", "--address", cluster.dashboard, "--name", "study"]
        with subprocess.Popen(submit, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as first:
            deadline = time.monotonic() + 300
            while not [path for path in storage.names(Path("runs/trials")) if path.name == "result.json"]:
                assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]  # noqa: PT018
                time.sleep(0.1)
            client = JobSubmissionClient(cluster.dashboard)
            (job,) = client.list_jobs()
            client.stop_job(job.submission_id)
            first.communicate(timeout=120)
            assert first.returncode != 0
        assert not (project / "dvc.lock").exists()
        # The head's disk is lost as well.
        for place in cluster.folder.glob("early-exit-*"):
            shutil.rmtree(place)
        done = subprocess.run(submit, cwd=project, env=environment, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0, done.stdout + done.stderr
    reused = next(line for line in done.stdout.splitlines() if " trials run, " in line)
    assert reused != "4 trials run, 0 reused of 4"
    home = Workspace(project)
    assert (home.report / "index.html").is_file()
    for path in home.models("demo-sentences").glob("*/model.safetensors"):
        assert file_hash(path) in home.selected("demo-sentences").read_text()
    # DVC and MLflow say the same as if it had run here.
    clean = {name: value for name, value in environment.items() if not name.startswith(("RAY_", "EARLY_EXIT_"))}
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=project, env=clean, capture_output=True, text=True, check=True
    )
    assert "up to date" in status.stdout, status.stdout
    assert git(project, "status", "--porcelain") in ("", "?? dvc.lock")
    from mlflow import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    for trial in Trials.read(home.trials_table, "").trials:
        assert trial.mlflow_run_id
        run = mlflow.get_run(trial.mlflow_run_id)
        assert run.info.status == "FINISHED"
        steps = {entry.step for entry in mlflow.get_metric_history(trial.mlflow_run_id, "selection")}
        assert steps == {1, 2}
        assert (project / "mlartifacts" / trial.mlflow_run_id / "artifacts" / "result.json").is_file()
    # A stage here takes the job's runs for this folder's.
    again = subprocess.run(
        [sys.executable, "-m", "stages.finetune"], cwd=project, env=clean | s3 | {"EARLY_EXIT_STORAGE": storage.name},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "0 trials run, 4 reused of 4" in again.stdout
    assert {t.mlflow_run_id for t in Trials.read(home.trials_table, "").trials} <= {
        run.info.run_id for run in mlflow.search_runs(["1"], max_results=1000)
    }


@pytest.mark.parametrize("place", ["s3://bucket/stage", "store"])
def test_a_stage_of_a_job_is_as_if_it_had_run_here(
    tmp_path: Path, s3: dict[str, str], mlflow_store: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """From the entry point on, without a cluster."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    place = place if "://" in place else str(tmp_path / place)
    project, storage = checkout(tmp_path / "project"), ObjectStorage(parse_address(place))
    monkeypatch.chdir(tmp_path)  # and back: the job's entry stays where it ran
    assert entry.run(project, tmp_path / "head" / "study", ["simulate"], None, storage) == 0
    shutil.copy(mlflow_store, project / "mlflow.db")
    monkeypatch.chdir(project)
    come_home(storage, "study", load_params(), 0)
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "simulate"], capture_output=True, text=True, check=True
    )
    assert "up to date" in status.stdout, status.stdout
    assert left_behind(Path("jobs/study/mlflow.db")) == []
    from mlflow import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{project}/mlflow.db")
    place = json.loads(Path(".locks/folder-id").read_text())["id"]
    for _ in range(2):  # brought twice, they are there once
        (run,) = mlflow.search_runs(["1"])
        assert (run.info.status, run.data.tags["stage"], run.data.tags["folder"]) == ("FINISHED", "simulate", place)
        (artifact,) = mlflow.list_artifacts(run.info.run_id)
        assert Path(mlflow.download_artifacts(run.info.run_id, artifact.path)).is_file()
        assert run.info.artifact_uri.startswith(f"file://{project}/mlartifacts/")
        environment = os.environ | {"EARLY_EXIT_STORAGE": storage.name}
        with Path("dvc.lock").open("a") as lock:  # edited in place, as DVC does
            lock.write("# later\n")
        command = [sys.executable, "-m", "ray_jobs.results", "study"]
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


WRITER = """
import os, signal, sqlite3
database = sqlite3.connect("mlflow.db")
database.executescript("PRAGMA cache_size = 5; CREATE TABLE runs (name)")
with database:
    database.executemany("INSERT INTO runs VALUES (?)", [("whole" * 500,)] * 100)
database.execute("UPDATE runs SET name = ?", ("half" * 500,))
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A stage that is killed as it writes: part of a transaction is in the database, and what undoes it beside."""


def test_a_database_that_a_kill_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = ObjectStorage(parse_address(str(tmp_path / "store")))
    head, home = tmp_path / "head", tmp_path / "home"
    for folder in (head, home):
        folder.mkdir()
    monkeypatch.chdir(head)
    assert subprocess.run([sys.executable, "-c", WRITER], check=False).returncode == -signal.SIGKILL
    assert Path("mlflow.db-journal").is_file()
    send(storage, "study", {"exit_code": 1, "profile": None})
    monkeypatch.chdir(home)
    bring(storage, "study")
    with closing(sqlite3.connect("jobs/study/mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {*database.execute("SELECT name FROM runs")} == {("whole" * 500,)}


def test_what_a_store_says_of_a_job_stays_inside(
    tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write there must not write here, beside what is asked for."""
    storage = ObjectStorage(parse_address(str(tmp_path / "store")))
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    Path("outputs/page").write_text("page")
    send(storage, "study", {"exit_code": 0, "profile": "real"})
    assert bring(storage, "study")["exit_code"] == 0
    assert Path("jobs/study/outputs/page").read_text() == "page"
    record = json.loads(record_of("study").read_text())
    (sha256,) = record["files"].values()
    for path in ("../../../evil", "/tmp/evil", "a/../../../../evil"):
        record_of("study").unlink()
        record_of("study").write_text(json.dumps(record | {"files": {path: sha256}}))
        storage.publish(record_of("study"))
        with pytest.raises(StorageError, match="lies outside the working folder"):
            bring(storage, "study")
