"""A job on a real cluster of this machine, from submission to results at home; and what is refused before that."""

import http.server
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ClusterError, ParamsError
from pipeline.identity.imports import ROOT
from pipeline.identity.versions import git_commit
from pipeline.layout import Workspace
from pipeline.results import Simulation
from pipeline.theory import appendix_c
from ray_jobs import entry, submit
from ray_jobs.stop import stop_jobs
from tests.ray_cluster import Cluster, clean_environment, free_ports, ray_cluster

pytestmark = pytest.mark.slow

SIMULATE = {"layers": 6, "patiences": [1, 2], "step": 0.1, "samples": 200, "seed": 0}

JOIN = '''
"""A stage of the tests: one toy trial through Ray Tune, which says on which cluster it ran."""
from pathlib import Path

from pipeline.storage import file_hash, write_json
from pipeline.params import load_params
from pipeline.results import TrialResult
from pipeline.training.plan import Group, Plan, run_trial
from pipeline.running.ray.tune import run_plan


class Silent:
    def started(self, trial): ...
    def epoch(self, trial, metrics): ...
    def ended(self, trial, result): ...


def runner(settings, names, directory, context, report):
    import ray

    def train(folder):
        (folder / "model.safetensors").touch()
        (folder / "cluster").write_text(ray.get_runtime_context().gcs_address)
        return TrialResult(
            best_epoch=1, epochs_run=1, selection=0.5, train_seconds=0.0, train_seconds_to_best=0.0, micro_batch=None,
            metrics={}, parameters=1, early_exit_parameters=0, layers=1, exits=(1,),
            weights_sha256=file_hash(folder / "model.safetensors"),
        )

    return run_trial(settings, directory, train)


if __name__ == "__main__":
    run_plan(
        Plan((Group("toy", {}, batch_sizes=(1,), learning_rates=(0.1,)),), (1,)),
        runner="stages.join:runner",
        root=Path("runs/toy"),
        runtime=load_params().runtime,
        context={"folder": str(Path.cwd())},
        observer=Silent(),
    )
    clusters = [path.read_text() for path in Path("runs/toy").glob("*/cluster")]
    write_json(Path("outputs/join.json"), {"clusters": clusters})
'''


def git(project: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *arguments], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this project with a small simulation, a stage that joins Ray, and a profile of its own."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "stages", "ray_jobs", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["simulate"] = SIMULATE
    (folder / "profiles" / "small.yaml").write_text(yaml.safe_dump(params))
    (folder / "stages" / "join.py").write_text(JOIN)
    graph = yaml.safe_load((folder / "dvc.yaml").read_text())
    graph["stages"]["join"] = {"cmd": "python -m stages.join", "outs": ["outputs/join.json"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "test")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as started:
        yield started


def run_submit(project: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ray_jobs.submit", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)


def test_job_comes_home(project: Path, cluster: Cluster, tmp_path: Path) -> None:
    common = ("--address", cluster.dashboard, "--results", str(tmp_path), "--name", "one")
    done = run_submit(project, cluster.environment, *common, "--stages", "simulate,join", "--profile", "small")
    assert done.returncode == 0, done.stdout + done.stderr
    home, commit = tmp_path / "one", git(project, "rev-parse", "HEAD")
    # The log was followed, and the results are those of the profile.
    assert "Running stage 'simulate'" in done.stdout
    assert f"Results: {home / 'outputs'}" in done.stdout
    assert Simulation.read(Workspace(home).simulation, "") == appendix_c(6, [1, 2], 0.1, 200, 0)
    assert json.loads((home / "job.json").read_text()) == {
        "schema": 1,
        "commit": commit,
        "stages": ["simulate", "join"],
        "profile": "small",
        "exit_code": 0,
    }
    assert not list(home.glob("*.partial"))
    # Nothing was written into the checkout.
    assert git(project, "status", "--porcelain") == ""
    # The run names the submitter's commit, although the job's folder has no git.
    with closing(sqlite3.connect(home / "work" / "mlflow.db")) as store:
        tags = store.execute("SELECT value FROM tags WHERE key = 'git_commit'").fetchall()
    assert tags == [(commit,)]
    # The trial ran on the cluster that ran the job, not on one that the stage started.
    joined = json.loads((home / "outputs" / "join.json").read_text())["clusters"]
    assert [address.rpartition(":")[2] for address in joined] == [str(cluster.port)]

    # A second job of the same name fails: its code comes back, and the first one's results do not pass for its own.
    failed = run_submit(project, cluster.environment, *common, "--stages", "prepare@nothing")
    assert failed.returncode == json.loads((home / "job.json").read_text())["exit_code"] != 0
    assert "prepare@nothing" in failed.stdout
    assert failed.stderr.splitlines()[-1].startswith(f"error: the job ended with exit code {failed.returncode}")
    assert not (home / "outputs").exists()
    assert list((home / "work" / ".dvc" / "cache" / "files").rglob("*"))  # what was finished comes from here again


SLOW_TO_END = """
import pathlib, signal, sys, time

def end(*_):
    time.sleep(5)  # longer than Ray's own patience
    pathlib.Path(sys.argv[1], "kept").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "runs").touch()
time.sleep(120)
"""


def test_jobs_end_in_peace_before_the_head_goes(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_TO_END)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster.dashboard)
    client = submit.connect(cluster.dashboard)
    job = client.submit_job(
        entrypoint=f"{sys.executable} {tmp_path / 'slow.py'} {tmp_path}",
        runtime_env={"env_vars": submit.job_environment({})},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    command = [sys.executable, "-m", "ray_jobs.stop", "--address", cluster.dashboard]
    done = subprocess.run(command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "no job runs\n"), done.stderr
    assert client.get_job_info(job).status == "STOPPED"
    assert (tmp_path / "kept").exists()


def test_unreachable_cluster(project: Path, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = run_submit(project, clean_environment(tmp_path), "--address", address, "--results", str(tmp_path / "jobs"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: no Ray cluster at {address} (")
    assert done.stderr.count("\n") == 1
    assert "ray start --head" in done.stderr
    assert not (tmp_path / "jobs").exists()


def test_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back after connect() sets it
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ClusterError, match=r"^no usable Ray cluster at http://127.* \(Version check returned 404"):
            submit.connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.mark.parametrize("ends", [False, True])
def test_jobs_are_stopped_on_a_cluster_that_ends(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """One of two jobs was deleted meanwhile; or the head goes."""
    asked: list[str] = []
    names = ("gone", "goes-on")
    jobs = [{"type": "SUBMISSION", "submission_id": name, "entrypoint": "x", "status": "RUNNING"} for name in names]

    class Head(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = self.path.startswith("/api/jobs")
            if ends and listed:
                self.connection.close()
                return
            version = {"version": "4", "ray_version": "2", "ray_commit": "", "session_name": ""}
            text = json.dumps((jobs if not asked else []) if listed else version).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(404, "Job does not exist")

        def log_message(self, format: str, *args: object) -> None: ...

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Head) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = submit.connect(f"http://127.0.0.1:{server.server_port}")
        if ends:
            with pytest.raises(ClusterError, match=r"^the cluster no longer answers \(ConnectionError: "):
                stop_jobs(client, 5)
        else:
            assert stop_jobs(client, 5) == []
            assert len(asked) == 2
        server.shutdown()


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "auto", "ray://127.0.0.1:10001", "http://"])
def test_not_a_dashboard(address: str) -> None:
    with pytest.raises(ClusterError, match="not a dashboard's address; give one such as http"):
        submit.connect(address)


def test_checked_before_submission(project: Path, tmp_path: Path) -> None:
    submit.check(project, ["finetune", "trace@demo-pairs"], "small")
    with pytest.raises(ParamsError, match="--stages: unknown stage 'finetun'; did you mean 'finetune'"):
        submit.check(project, ["finetun"], None)
    with pytest.raises(ParamsError, match="--profile: unknown profile 'smal'; did you mean 'small'"):
        submit.check(project, [], "smal")
    with pytest.raises(ParamsError, match=r"holds no dvc\.yaml"):
        submit.check(tmp_path, [], None)


def test_what_travels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EARLY_EXIT_COMMIT", raising=False)
    here = {"MLFLOW_TRACKING_URI": "http://tracking:5000", "HUB_MIRROR": str(tmp_path), "HOME": "mine"}
    assert submit.job_environment(here) == {
        "EARLY_EXIT_COMMIT": git_commit(),
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "MLFLOW_TRACKING_URI": "http://tracking:5000",
        "HUB_MIRROR": str(tmp_path),
    }
    local = submit.job_environment({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"})
    assert set(local) == {"EARLY_EXIT_COMMIT", "RAY_JOB_STOP_WAIT_TIME_S"}


def test_commit_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EARLY_EXIT_COMMIT", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "unknown"
    monkeypatch.setenv("EARLY_EXIT_COMMIT", "0123abc-dirty")
    assert git_commit() == "0123abc-dirty"


def test_work_folder_goes_on(tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    left_behind = ("runs/key/other.json", "dvc.lock", ".git/HEAD")
    for name in (".dvc/config", "pipeline/new.py", "profiles/small.yaml", "params.yaml", *left_behind):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    for name in (".dvc/cache/blob", "pipeline/old.py", "runs/key/result.json", "dvc.lock"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(f"{name} of before")
    entry.lay_out(source, work, "small")
    files = {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}
    kept = {".dvc/cache/blob", "runs/key/result.json", "dvc.lock"}
    fresh = {".dvc/config", ".dvc/config.local", "pipeline/new.py", "profiles/small.yaml", "params.yaml"}
    assert files == kept | fresh
    assert (work / "dvc.lock").read_text() == "dvc.lock of before"
    assert (work / "params.yaml").read_text() == "profiles/small.yaml"
    assert (source / "params.yaml").read_text() == "params.yaml"
    assert not (source / ".dvc/config.local").exists()


def test_a_folder_of_any_name_takes_what_dvc_pushes(tmp_path: Path) -> None:
    from dvc.config import Config

    source, home = tmp_path / "source", tmp_path / "one, two #3"
    (source / ".dvc").mkdir(parents=True)
    home.mkdir()
    work = entry.lay_out(source, home / "work", None)
    assert Path(Config(str(work / ".dvc"))["remote"]["home"]["url"]).resolve() == (work / "jobs/pushed").resolve()


def test_a_job_leaves_its_own_outputs_only(tmp_path: Path) -> None:
    """Jobs of one name share a working folder, with other stages or another profile each time."""
    source, home = tmp_path / "source", tmp_path / "home"
    source.mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=source, check=True)
    write = "mkdir -p outputs && printf x >> {0}.ran && cp code outputs/{0}"
    names = ("one", "two")
    stages = {name: {"cmd": write.format(name), "deps": ["code"], "outs": [f"outputs/{name}"]} for name in names}
    (source / "code").write_text("x")
    (source / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))

    def outputs_of(*asked: str) -> list[str]:
        assert entry.run(source, home, asked, None) == 0
        return sorted(path.name for path in (home / "outputs").iterdir())

    assert outputs_of("one") == ["one"]
    assert outputs_of("two") == ["two"]
    assert outputs_of() == ["one", "two"]
    assert [(home / "work" / f"{name}.ran").read_text() for name in names] == ["x", "x"]


def test_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match=r"cannot be used .*give --results on a disk"):
        entry.run(tmp_path, tmp_path / "file" / "job", [], None)
