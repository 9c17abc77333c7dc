"""Secrets are in no log, run or result; names in stored files lead to no other place. Nothing is unpickled:
tests/test_architecture.py."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError, ClusterError, ParamsError, exit_with_one_line, one_line, redacted
from pipeline.layout import HERE
from pipeline.running.mlflow.tracker import Tracker
from pipeline.running.runs import new_run, unsent_file
from pipeline.storage import whole_folder, write_text
from pipeline.training.plan import RESUME
from pipeline.training.resume import State, load_state, save_state
from ray_jobs.submit import job_environment
from tests.stored_files import write_every
from tests.workspace import Workspace

TOKEN = "hf_AbCdEfGhIjKlMnOpQrSt"


# Secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:pass@db.example/runs", "postgresql://db.example/runs"),
        ("API request to http://ann:p%40ss@host:5000/api failed", "API request to http://host:5000/api failed"),
        ("GET /b?X-Amz-Signature=abc&x=1", "GET /b?X-Amz-Signature=[secret]&x=1"),
        ("401 for url https://hub/api?access_token=abc", "401 for url https://hub/api?access_token=[secret]"),
        (f"Invalid user token {TOKEN}.", "Invalid user token [secret]."),
        ("header Authorization: Bearer abcdef.ghi-jkl", "header Authorization: Bearer [secret]"),
        ("key AKIAABCDEFGHIJKLMNOP is unknown", "key [secret] is unknown"),
        ("the server said 'my own secret' is wrong", "the server said '[secret]' is wrong"),
        (
            "https://host/a:b/c@d, sep_token='[SEP]', basic blocks",
            "https://host/a:b/c@d, sep_token='[SEP]', basic blocks",
        ),
    ],
)
def test_what_is_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "my own secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/ann/.ray/token")  # names no secret
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "something")
    assert redacted(text) == shown
    assert one_line(ClusterError(text)) == shown
    assert redacted("something in /home/ann/.ray/token") == "something in /home/ann/.ray/token"


def test_errors_of_libraries_are_shown_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real ones: of SQLAlchemy, botocore, requests and the hub's client."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "amazon-secret")
    monkeypatch.setenv("HF_TOKEN", "hub-secret-token")
    import boto3
    import requests
    import sqlalchemy

    def sql() -> None:
        sqlalchemy.create_engine("postgresql+psycopg2://ann:db-secret@127.0.0.1:1/runs").connect()

    def amazon() -> None:
        boto3.client("s3", endpoint_url="http://ann:amazon-secret@127.0.0.1:1").list_buckets()

    def web() -> None:
        requests.get("http://ann:web-secret@127.0.0.1:1/?token=web-secret", timeout=5)

    def named() -> None:
        raise RuntimeError(f"no user for {'hub-secret-token'}")

    for call in (sql, amazon, web, named):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call()
        assert "secret" not in one_line(caught.value).replace("[secret]", "")
    with pytest.raises(SystemExit, match="1"), exit_with_one_line():
        named()
    said = capsys.readouterr().err
    assert "no user for [secret]" in said
    assert "Traceback" in said, "what went wrong is still there"
    assert "hub-secret" not in said.replace("{'hub-secret-token'}", ""), "but for the test's own source line"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"runtime.tracking_uri": "http://ann:hidden@host:5000"}, "runtime.tracking_uri: 'http://host:5000'"),
        ({"runtime.ray_address": "ray://ann:hidden@host:10001"}, "runtime.ray_address: 'ray://host:10001'"),
        ({"tasks.own": {"source": {"train": f"https://hub/a.csv?token={TOKEN}"}}}, "tasks.own.source.train"),
    ],
)
def test_a_secret_in_the_settings_is_refused(workspace: Workspace, changes: dict[str, Any], key: str) -> None:
    workspace.write_params(changes)
    line = workspace.stage("simulate").error()
    assert f"params.yaml: {key}" in line
    assert "holds a password or token, and this file is committed; take it out" in line
    assert "hidden" not in line
    assert TOKEN not in line
    assert workspace.files() == set()


def test_a_secret_in_the_address_is_in_no_run_file_or_line(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that cannot reach a server, and runs of which a secret is told."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hidden@127.0.0.1:1")
    line = workspace.stage("simulate").error()
    assert "MLflow at http://127.0.0.1:1 cannot be used" in line
    assert "hidden" not in line
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("HF_TOKEN", "very-hidden")
    tracker = Tracker()
    run = tracker.open(
        "x",
        tags={"stage": "x", "source": "http://ann:hidden@host"},
        params={"a": "very-hidden", "b": "s3://k:hidden@b"},
    )
    run.log_params({"c": TOKEN})
    found = tracker.client.get_run(run.run_id).data
    assert found.params == {"a": "[secret]", "b": "s3://b", "c": "[secret]"}
    assert found.tags["source"] == "http://host"
    for path in [HERE.tracking_store, *workspace.folder.rglob("*.json")]:
        assert not re.search(rb"hidden|hf_AbC", path.read_bytes()), path


def test_no_password_travels_with_a_job() -> None:
    """Ray's dashboard, its job table and its logs show a job's environment."""
    secrets = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "hidden-away", "HF_TOKEN": TOKEN}
    secrets |= {"AWS_SECRET_ACCESS_KEY": "hidden-away", "AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP"}
    travels = job_environment({**secrets, "MLFLOW_TRACKING_URI": "http://host:5000"})
    assert not set(secrets.values()) & set(travels.values())
    with pytest.raises(ParamsError, match="MLFLOW_TRACKING_URI: http://host:5000 holds a password") as caught:
        job_environment({"MLFLOW_TRACKING_URI": "http://ann:hidden@host:5000"})
    assert "hidden" not in str(caught.value)


# Names and paths


PATHS = {"task", "backbone", "split", "key", "trial", "id", "file", "artifacts", "splits", "report_splits", "inputs"}
"""Fields of stored files whose values become a part of a path."""
NOT_PATHS = {"names", "tags"}
"""Fields that are compared and shown."""


def with_each_name(stored: Any, outside: str, named: bool = False) -> Iterator[tuple[str, Any]]:
    """Places of texts and keys that become a part of a path, each with the file in which it is changed."""
    if isinstance(stored, dict):
        for name, value in stored.items():
            rest = {other: part for other, part in stored.items() if other != name}
            if named:
                yield f"{name} (key)", rest | {outside: value}
            for place, changed in with_each_name(value if name not in NOT_PATHS else None, outside, name in PATHS):
                yield f"{name}.{place}", rest | {name: changed}
    elif isinstance(stored, list):
        for i, value in enumerate(stored[:2]):
            for place, changed in with_each_name(value, outside, named):
                yield f"{i}.{place}", [*stored[:i], changed, *stored[i + 1 :]]
    elif isinstance(stored, str) and named:
        yield "", outside


@pytest.mark.parametrize("outside", ["../../secret", "/etc/passwd", ".."])
def test_no_stored_name_leads_out_of_its_folder(tmp_path: Path, outside: str) -> None:
    tried: Counter[str] = Counter()
    taken = []
    for kind, path in write_every(tmp_path).items():
        stored = json.loads(path.read_text(encoding="utf-8"))
        for place, changed in with_each_name(stored, outside):
            path.write_text(json.dumps(changed), encoding="utf-8")
            try:
                kind.read(path, "do it again")
            except ArtifactError:
                tried[kind.__name__] += 1
            else:
                taken.append(f"{kind.__name__}: {place}")
        path.write_text(json.dumps(stored), encoding="utf-8")
        kind.read(path, "do it again")
    assert taken == []
    assert set(tried) >= {"Manifest", "Selected", "Trials", "TraceIndex", "Predictions", "UnsentRun", "Evaluated"}


def test_a_state_that_names_another_file_counts_as_none(tmp_path: Path) -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inside, outside = tmp_path / "trial", tmp_path / "resume-1.safetensors"
    inside.mkdir()
    save_state(inside, State(model.state_dict(), optimizer.state_dict(), [{"epoch": 1.0}], None))
    assert load_state(inside) is not None
    (inside / outside.name).rename(outside)
    payload = json.loads((inside / RESUME).read_text())
    for file in (f"../{outside.name}", str(outside)):
        (inside / RESUME).write_text(json.dumps(payload | {"file": file}))
        assert load_state(inside) is None


def test_a_kept_run_sends_no_file_of_elsewhere(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever can write into runs/ could else have any file of the machine sent to the server."""
    secret = tmp_path_factory.mktemp("home") / "id_rsa"
    secret.write_text("private")
    unsent = new_run("x", "k", "k", None, {"stage": "finetune", "instance": ""}, {})
    for artifact in (str(secret), f"../{secret.parent.name}/id_rsa"):
        path = unsent_file("k")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unsent.model_copy(update={"artifacts": (artifact,)}).text())
        tracker = Tracker()
        assert tracker.sync() == (0, 0)
        assert tracker.client.search_runs([tracker.experiment_id]) == []
    path.write_text(unsent.model_copy(update={"artifacts": ("params.yaml",)}).text())
    assert Tracker().sync() == (1, 0)


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    """Where a file is put together, a link may lie that leads elsewhere."""
    outside, path = tmp_path / "outside", tmp_path / "results" / "metrics.json"
    outside.write_text("theirs")
    path.parent.mkdir()
    path.with_name("metrics.json.partial").symlink_to(outside)
    path.symlink_to(outside)
    write_text(path, "ours")
    assert (outside.read_text(), path.read_text()) == ("theirs", "ours")
    folder = tmp_path / "data"
    folder.with_name("data.partial").symlink_to(tmp_path / "results")
    with pytest.raises(OSError, match="exists"), whole_folder(folder):
        pass
    assert path.read_text() == "ours"
