"""The tracking server: users, hosts, loopback; many writers while it and its database are killed."""

import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.identity.imports import ROOT
from pipeline.running.mlflow.client import Client
from pipeline.running.mlflow.tracker import Tracker
from tests.mlflow_server import Line
from tests.tracking_server import PASSWORD, TrackingServer, listening, tracking_server
from tests.workspace import Workspace

SERVE = ("-m", "pipeline", "tracking-server")
LOGIN = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": PASSWORD}

WRITER = """
import os, sys, time
from pathlib import Path
from pipeline.running.mlflow.tracker import Tracker

stage, trials, least = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tags = {"stage": stage, "instance": ""}
tracker = Tracker(os.environ["MLFLOW_TRACKING_URI"])
tracker.close_abandoned(stage, "")
parent = tracker.open(stage, tags=tags, params={"stage": stage})
keys = [f"{stage}-{i}" for i in range(trials)]
runs = [tracker.open("trial", tags=tags, params={"a": 1}, parent=parent, key=key) for key in keys]
epoch = 0
while epoch < least or not Path("enough").exists():
    epoch += 1
    for run in runs:
        run.log_metrics({"epoch": float(epoch), "selection": 1 / epoch}, step=epoch)
    Path(f"{stage}.epochs").write_text(str(epoch))
    time.sleep(0.2)
for run in runs:
    run.log_artifact(Path("params.yaml"))
    run.end()
parent.end()
tracker.close()
"""
"""A stage with trials that go on until they are told that it is enough."""


def folders(workspace: Workspace, count: int) -> list[Path]:
    """Clones of the project."""
    made = []
    for i in range(count):
        folder = workspace.folder / f"clone{i}"
        folder.mkdir()
        for name in ("pipeline", "stages"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copy("params.yaml", folder)
        made.append(folder)
    return made


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a client of a server in a folder; all are ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start_one(folder: Path, server: TrackingServer, *arguments: str) -> "subprocess.Popen[str]":
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, *arguments]
        processes.append(subprocess.Popen(command, cwd=folder, env=server.environment, text=True, **out))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def stored(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Client, list[Any]]:
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    client = Client(server.address)
    experiment = client.get_experiment_by_name("early-exit")
    return client, list(client.search_runs([experiment.experiment_id], max_results=1000))


@pytest.mark.slow
def test_a_server_without_a_database_of_its_own(
    workspace: Workspace, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users and hosts are checked, it listens on loopback, and several folders start on it at once."""
    with tracking_server() as server:
        login = b64encode(f"ann:{PASSWORD}".encode()).decode()
        assert server.status() == 401
        assert server.status("/") == 401
        assert server.status(Authorization=f"Basic {login}") == 200
        assert server.status(Authorization=f"Basic {login}", Host="evil.example") == 403
        assert listening(server.process.pid) == {"127.0.0.1"}
        lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
        assert not any(PASSWORD in line for line in lines), "another user of the machine would see it"
        with pytest.raises(Exception, match="does not know this user; set MLFLOW_TRACKING_USERNAME"):
            Client(server.address).search_experiments()
        clones = folders(workspace, 3)
        drivers = [start(folder, server, "-c", WRITER, "finetune", "2", "3") for folder in clones]
        for folder in clones:
            (folder / "enough").touch()
        assert [(driver.communicate(timeout=240)[0], driver.returncode) for driver in drivers] == [("", 0)] * 3
        client, runs = stored(server, monkeypatch)
        assert Counter(run.data.tags["mlflow.runName"] for run in runs) == {"finetune": 3, "trial": 6}
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert {run.data.metrics["epoch"] for run in runs if "trial" in run.data.tags} == {3.0}
        trial = next(run for run in runs if "trial" in run.data.tags)
        assert [file.path for file in client.list_artifacts(trial.info.run_id)] == ["params.yaml"]
        assert PASSWORD not in server.printed
        with Line(server.port) as line:
            tracker = Tracker(f"http://127.0.0.1:{line.port}")
            line.loses_answers = True
            run = tracker.open("lost answer", tags={"stage": "report", "instance": ""}, params={"a": 1})
            assert run.run_id is None
            assert "The work goes on" in capsys.readouterr().err
            line.loses_answers = False
            run.end()
            tracker.close()
            _, runs = stored(server, monkeypatch)
            (found,) = [run for run in runs if run.data.tags["mlflow.runName"] == "lost answer"]
            assert (found.info.status, found.data.params) == ("FINISHED", {"a": "1"})
    assert not psutil.pid_exists(server.process.pid)


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        ((), {}, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD: set both"),
        ((), LOGIN | {"MLFLOW_TRACKING_PASSWORD": "short"}, "the password with 12 characters or more"),
        (("--host", "0.0.0.0"), {"MLFLOW_TRACKING_USERNAME": "ann"}, "set both"),
        (("--host", "192.0.2.1"), LOGIN, "192.0.2.1:5000: Cannot assign requested address; end what listens there"),
        (("--postgres",), LOGIN | {"MLFLOW_BACKEND_STORE_URI": "postgresql://h/d"}, "names another database"),
        (("--artifacts", "s3://key:secret@bucket"), LOGIN, "--artifacts s3://bucket: give s3://bucket/path"),
        (("--artifacts", "gs://bucket"), LOGIN, "--artifacts gs://bucket: give s3://bucket/path"),
        (
            ("--port", "{free}"),
            LOGIN | {"MLFLOW_BACKEND_STORE_URI": "postgresql://ann:db-secret@127.0.0.1:1/runs"},
            "MLFLOW_BACKEND_STORE_URI postgresql+psycopg2://127.0.0.1:1/runs: cannot be used",
        ),
        (("--port", "{taken}"), LOGIN, "Address already in use; end what listens there, or give --port"),
    ],
)
def test_what_a_server_needs_is_said_before_it_starts(
    workspace: Workspace, arguments: tuple[str, ...], environment: dict[str, str], line: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        given = [word.format(taken=taken.getsockname()[1], free=port) for word in arguments]
        error = workspace.command(*SERVE, *given, **environment).error()
    assert line in error
    assert not any(secret in error for secret in ("key:", "secret@", "db-secret", PASSWORD))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An S3 server with a bucket; yields the environment that leads to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "access",
        "AWS_SECRET_ACCESS_KEY": "aws secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket="runs")
    yield environment
    server.stop()


@pytest.mark.cluster
def test_many_writers_while_the_server_and_its_database_are_killed(
    workspace: Workspace, start: Start, bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine stages of three clones on PostgreSQL and S3: no run lost, none twice, none left RUNNING."""
    with tracking_server("--postgres", "--artifacts", "s3://runs/early-exit", environment=bucket) as server:
        clones = folders(workspace, 3)
        names = ("finetune", "trace", "attack")
        drivers = [start(folder, server, "-c", WRITER, name, "3", "5") for folder in clones for name in names]

        def go_on(epochs: int) -> None:
            """Wait until each driver is so many epochs further."""
            aims = {}
            for folder in clones:
                for name in names:
                    path = folder / f"{name}.epochs"
                    aims[path] = epochs + (int(path.read_text() or 0) if path.exists() else 0)
            deadline = time.monotonic() + 300
            while not all(path.exists() and int(path.read_text() or 0) >= aim for path, aim in aims.items()):
                assert all(driver.poll() is None for driver in drivers)
                assert time.monotonic() < deadline
                time.sleep(0.5)

        go_on(3)
        server.kill()
        go_on(5)
        server.start()
        go_on(3)
        server.kill_database()
        go_on(3)
        deadline = time.monotonic() + 60
        while "PostgreSQL died; it is started again" not in server.printed:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        for folder in clones:
            (folder / "enough").touch()
        for driver in drivers:
            said = driver.communicate(timeout=300)[0]
            assert driver.returncode == 0, said
            assert said.count("The work goes on") >= 1, "the server was away"
        for folder in clones:
            done = start(folder, server, "-m", "pipeline", "sync-runs").communicate(timeout=120)[0]
            assert done.endswith(" 0 left\n"), done
        client, runs = stored(server, monkeypatch)
        assert len(runs) == 3 * 3 * (1 + 3)
        assert {run.info.status for run in runs} == {"FINISHED"}
        by_trial = Counter((run.data.tags["folder"], run.data.tags.get("trial")) for run in runs)
        assert sum(1 for (_, trial), count in by_trial.items() if trial and count == 1) == 27
        expected = Counter(int((folder / f"{name}.epochs").read_text()) for folder in clones for name in names)
        found: Counter[int] = Counter()
        for run in runs:
            if "trial" in run.data.tags:
                steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "selection")]
                assert steps == list(range(1, len(steps) + 1)), "no epoch is missing, and none is there twice"
                found[len(steps)] += 1
                assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["params.yaml"]
        assert found == Counter({epochs: 3 * count for epochs, count in expected.items()})
        assert listening(server.process.pid) == {"127.0.0.1"}
        secrets = (PASSWORD, "aws secret")
        assert not any(secret in server.printed for secret in secrets)
