"""Runs in a real MLflow store: found again by their key, ended whatever happens, written by many processes."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from sqlalchemy import event
from sqlalchemy.engine import Engine

from pipeline.errors import TrackingError
from pipeline.identity.imports import ROOT
from pipeline.identity.versions import COMMIT_VARIABLE, git_commit
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.running.mlflow.client import EXPERIMENT
from pipeline.running.mlflow.registry import make_name
from pipeline.running.mlflow.tracker import Tracker
from pipeline.running.runs import TrackedRun
from pipeline.running.signals import stopped_by_signals
from pipeline.running.stage import _locked
from pipeline.running.store import database_uri
from tests.mlflow_server import Line, mlflow_server
from tests.workspace import Workspace

TAGS = {"stage": "finetune", "instance": ""}


def test_a_trial_goes_on_in_its_own_run(workspace: Workspace) -> None:
    tracker = Tracker()
    parent = tracker.open("finetune", tags=TAGS, params={})
    first = tracker.open("a", tags=TAGS, params={"seed": 1}, parent=parent, key="k")
    first.log_metrics({"selection": 0.5, "score_exit_01": float("nan")}, step=1)
    first.end("KILLED")
    again = tracker.open("a", tags=TAGS, params={"seed": 1}, parent=parent, key="k")
    assert again.run_id == first.run_id
    assert tracker.open("b", tags=TAGS, params={}, key="other").run_id != first.run_id
    run = tracker.client.get_run(again.run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"seed": "1"}
    assert run.data.metrics == {"selection": 0.5}, "a missing metric says more than a plotted 0"
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id


def test_only_runs_of_this_folder_and_stage_are_closed(workspace: Workspace) -> None:
    tracker = Tracker()
    mine = tracker.open("finetune", tags=TAGS, params={}, key="k")
    cifar = tracker.open("cifar", tags={"stage": "cifar", "instance": ""}, params={})
    HERE.folder_id.unlink()  # another folder, on the same server
    other = Tracker()
    assert other.find("k") is None
    theirs = other.open("finetune", tags=TAGS, params={}, key="k")
    tracker.close_abandoned("finetune", "")
    status = {run.run_id: tracker.client.get_run(run.run_id).info.status for run in (mine, cifar, theirs)}
    assert status == {mine.run_id: "KILLED", cifar.run_id: "RUNNING", theirs.run_id: "RUNNING"}


def test_a_stage_leaves_what_a_number_is_walked_back_by(workspace: Workspace) -> None:
    assert workspace.stage("prepare", "demo-sentences").code == 0
    tracker = Tracker()
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert run.info.status == "FINISHED"
    assert {"stage", "instance", "git_commit", "params_hash"} <= run.data.tags.keys()
    assert run.data.tags["stage"] == "prepare"
    assert run.data.metrics == {"rows.train": 40.0, "rows.selection": 12.0, "rows.validation": 12.0}
    assert {entry.tags[0].value for entry in run.inputs.dataset_inputs} == {"train", "selection", "validation"}
    assert [file.path for file in tracker.client.list_artifacts(run.info.run_id)] == ["manifest.json"]


# A store that goes away


def recorded(tracker: Tracker, key: str) -> tuple[str, dict[str, list[int]], dict[str, str]]:
    """Status, steps by metric, and params of a trial's run, as the store has them."""
    (run,) = tracker.client.search_runs([tracker.experiment_id], f"tags.trial = '{key}'")
    steps = {
        name: [entry.step for entry in tracker.client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return run.info.status, steps, run.data.params


def break_database() -> None:
    shutil.copy(HERE.tracking_store, "whole.db")
    HERE.tracking_store.write_bytes(b"no database" * 1000)


def mend_database() -> None:
    HERE.tracking_store.write_bytes(Path("whole.db").read_bytes())


def three_epochs(tracker: Tracker, lose: Callable[[], object]) -> None:
    """A stage's run with two trials, of which the store sees the first epoch of the first."""
    stage = tracker.open("finetune", tags=TAGS, params={"stage": "finetune"})
    first = tracker.open("a", tags=TAGS, params={"seed": 1}, parent=stage, key="k1")
    first.log_metrics({"epoch": 1.0, "selection": 0.1}, step=1)
    lose()
    first.log_metrics({"epoch": 2.0, "selection": 0.2}, step=2)
    second = tracker.open("b", tags=TAGS, params={"seed": 2}, parent=stage, key="k2")
    second.log_metrics({"epoch": 1.0, "selection": 0.3}, step=1)
    first.log_metrics({"epoch": 2.0, "selection": 0.2}, step=2)  # the worker came up again and tells it again
    first.log_metrics({"epoch": 3.0, "selection": 0.3}, step=3)
    first.log_artifact(Path("params.yaml"))
    first.end()
    stage.log_metrics({"headline": 0.3})
    assert tracker.find("k1") is not None
    assert tracker.find("k2") is None


def test_a_store_that_goes_away_stops_nothing_and_lacks_nothing_when_it_is_back(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker()
    three_epochs(tracker, break_database)
    tracker.close()
    said = capsys.readouterr().err
    assert said.count("The work goes on; its records are kept in runs/tracking") == 1
    assert "3 runs are kept in runs/tracking; send them with `python -m pipeline sync-runs`" in said
    assert len(list(HERE.unsent.iterdir())) == 3
    mend_database()
    tracker.sender.patience.try_now()
    tracker.runs["k1"].deliver()
    assert "MLflow answers again" in capsys.readouterr().err
    assert not list(HERE.unsent.iterdir())
    status, steps, params = recorded(tracker, "k1")
    assert (status, steps, params) == ("FINISHED", {"epoch": [1, 2, 3], "selection": [1, 2, 3]}, {"seed": "1"})
    assert artifacts(tracker, tracker.runs["k1"]) == ["params.yaml"]
    assert recorded(tracker, "k2") == ("KILLED", {"epoch": [1], "selection": [1]}, {"seed": "2"}), "ended by close"


def test_what_a_driver_could_not_send_the_next_one_does(workspace: Workspace) -> None:
    tracker = Tracker()
    three_epochs(tracker, break_database)
    mend_database()
    Path(".locks").mkdir(exist_ok=True)
    with FileLock(HERE.lock("finetune", "")):
        assert Tracker().sync() == (0, 3), "its driver still works"
    assert workspace.command("-m", "pipeline", "sync-runs").out == "3 runs sent, 0 left\n"
    assert workspace.command("-m", "pipeline", "sync-runs").out == "0 runs sent, 0 left\n"
    after = Tracker()
    assert recorded(after, "k1")[:2] == ("FINISHED", {"epoch": [1, 2, 3], "selection": [1, 2, 3]})
    assert recorded(after, "k2") == ("KILLED", {"epoch": [1], "selection": [1]}, {"seed": "2"})
    (stage,) = after.client.search_runs([after.experiment_id], "attributes.run_name = 'finetune'")
    assert (stage.info.status, stage.data.metrics) == ("KILLED", {"headline": 0.3})
    (trial,) = after.client.search_runs([after.experiment_id], "tags.trial = 'k2'")
    assert trial.data.tags["mlflow.parentRunId"] == stage.info.run_id


def test_epochs_logged_while_the_store_was_away_are_in_the_run_that_it_has(workspace: Workspace) -> None:
    """A trial that goes on with another driver, to which the store answers later."""
    killed = Tracker().open("a", tags=TAGS, params={}, key="k1")
    killed.log_metrics({"epoch": 1.0}, step=1)
    tracker = Tracker()
    break_database()
    run = tracker.open("a", tags=TAGS, params={}, key="k1")
    for epoch in (1, 2, 3):
        run.log_metrics({"epoch": float(epoch)}, step=epoch)
    mend_database()
    tracker.sender.patience.try_now()
    run.log_metrics({"epoch": 4.0}, step=4)
    assert recorded(tracker, "k1")[1] == {"epoch": [1, 2, 3, 4]}


def test_epochs_that_another_driver_could_not_send_are_not_logged_twice(workspace: Workspace) -> None:
    tracker = Tracker()
    three_epochs(tracker, break_database)
    mend_database()
    HERE.locks.mkdir(exist_ok=True)
    with FileLock(HERE.lock("finetune", "")):  # its stage goes on, and leaves the trial
        later = Tracker()
        assert later.sync() == (0, 3)
        run = later.open("b", tags=TAGS, params={}, key="k2")
        for epoch in (1, 2):
            run.log_metrics({"epoch": float(epoch), "selection": 0.3}, step=epoch)
        run.end()
    assert recorded(later, "k2")[1] == {"epoch": [1, 2], "selection": [1, 2]}


def test_a_parent_is_made_once_though_its_answer_was_lost(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker()
    tracker.sender.patience.lose()
    stage = tracker.open("finetune", tags=TAGS, params={})
    trial = tracker.open("a", tags=TAGS, params={}, parent=stage, key="k1")
    make = tracker.client._client.create_run

    def lose_answer(*arguments: Any) -> None:
        make(*arguments)
        monkeypatch.undo()
        raise MlflowException("the answer is lost")

    monkeypatch.setattr(tracker.client._client, "create_run", lose_answer)
    for _ in range(2):
        tracker.sender.patience.try_now()
        trial.deliver()
    stage.deliver()
    (run,) = tracker.client.search_runs([tracker.experiment_id], f"tags.run = '{stage.id}'")
    (child,) = tracker.client.search_runs([tracker.experiment_id], "tags.trial = 'k1'")
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id


def test_a_run_of_which_a_part_is_refused_ends(workspace: Workspace) -> None:
    tracker = Tracker()
    run = tracker.open("finetune", tags=TAGS, params={"rate": 1})
    tracker.sender.patience.lose()
    run.log_params({"rate": 2})
    run.end()
    assert Tracker().sync() == (1, 0)
    assert tracker.client.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_that_ends_as_another_driver_looks_stays_as_it_ended(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, tracker = Tracker().open("finetune", tags=TAGS, params={}), Tracker()
    works = tracker._works

    def meanwhile(*arguments: Any) -> bool:
        theirs.end()
        return works(*arguments)

    monkeypatch.setattr(tracker, "_works", meanwhile)
    tracker.close_abandoned("finetune", "")
    assert tracker.client.get_run(theirs.run_id).info.status == "FINISHED"


def test_a_look_at_a_lock_is_no_driver(workspace: Workspace) -> None:
    """Drivers look whether that of another stage still works; it starts all the same."""
    HERE.locks.mkdir()
    HERE.lock("finetune").touch()
    tracker, ended = Tracker(), threading.Event()

    def look() -> None:
        while not ended.wait(0.0002):
            tracker._works(TAGS, "trace", "task")

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(200):
            _locked("finetune", "", load_params(), lambda stage: None, lambda params, instance: True)
    finally:
        ended.set()
        looker.join()


def test_a_signal_never_leaves_a_transaction_open(workspace: Workspace) -> None:
    """SQLAlchemy does not roll back what is interrupted while it fetches rows: the database then stays locked."""
    tracker = Tracker()
    run = tracker.open("a", tags=TAGS, params={}, key="k")
    chance = random.Random(1)

    def log_until_stopped() -> None:
        try:
            threading.Timer(chance.uniform(0, 0.03), os.kill, (os.getpid(), signal.SIGTERM)).start()
            while True:
                run.log_metrics({"selection": 0.5}, step=len(run.steps))
        finally:
            run.log_metrics({"selection": 0.75}, step=len(run.steps))

    for _ in range(60):
        with pytest.raises(SystemExit) as ended, stopped_by_signals("finetune"):
            log_until_stopped()
        assert ended.value.code == 128 + signal.SIGTERM
        assert not list(HERE.unsent.glob("*")), "the store counts as away"
    steps = recorded(tracker, "k")[1]["selection"]
    assert len(steps) == len(set(steps)) >= 60
    assert {int(step) for step in steps} == run.steps


@pytest.mark.parametrize("table", ["experiment_tags", "datasets", "registered_models"])
def test_another_writer_is_there_first(workspace: Workspace, table: str) -> None:
    """What two drivers write at once, where each looks and then inserts, is written once and fails neither."""
    tracker = Tracker()
    run = tracker.open("trace", tags=TAGS, params={})
    data = DatasetInput(Dataset("rows", "0a", "local", "data"), [])

    def write() -> None:
        if table == "experiment_tags":
            tracker.client.set_experiment_tag(tracker.experiment_id, "new", "mine")
        elif table == "datasets":
            tracker.client.log_inputs(run.run_id, [data])
        else:
            make_name(tracker.client, "early-exit-task", "task")

    inserts: list[str] = []

    def insert_first(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            inserts.append(statement)
            if len(inserts) == 1:
                with closing(sqlite3.connect(HERE.tracking_store, timeout=1)) as other, other:
                    other.execute(statement, parameters)

    event.listen(Engine, "before_cursor_execute", insert_first)
    try:
        write()
    finally:
        event.remove(Engine, "before_cursor_execute", insert_first)
    assert len(inserts) == 1, "the second look finds it"


def test_a_stage_that_is_interrupted_as_its_run_opens_ends_it(workspace: Workspace) -> None:
    def interrupt(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT INTO runs"):
            os.kill(os.getpid(), signal.SIGINT)

    event.listen(Engine, "after_cursor_execute", interrupt)
    try:
        done = workspace.stage("simulate")
    finally:
        event.remove(Engine, "after_cursor_execute", interrupt)
    assert done.code == 128 + signal.SIGINT
    tracker = Tracker()
    assert [run.info.status for run in tracker.client.search_runs([tracker.experiment_id])] == ["KILLED"]


def test_a_run_that_was_deleted_meanwhile_is_said_and_stops_nothing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker()
    run = tracker.open("finetune", tags=TAGS, params={})
    tracker.client.delete_run(run.run_id)
    run.log_metrics({"headline": 0.3})
    run.end()
    assert "warning: a part of the run 'finetune' is lost" in capsys.readouterr().err
    assert not HERE.unsent.exists() or not list(HERE.unsent.iterdir())


def test_a_store_that_goes_away_behind_a_refused_part_gets_the_ending_later(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker()
    run = tracker.open("finetune", tags=TAGS, params={"a": 1})
    own = tracker.client._client
    tracker.sender.patience.lose()
    run.log_metrics({"headline": 0.3})
    tracker.sender.patience.try_now()
    with monkeypatch.context() as broken:

        def refused(*arguments: Any, **more: Any) -> None:
            broken.setattr(own, "set_terminated", away)
            raise MlflowException("too long", INVALID_PARAMETER_VALUE)

        def away(*arguments: Any, **more: Any) -> None:
            raise MlflowException("no answer")

        broken.setattr(own, "log_batch", refused)
        run.end()
    tracker.close()
    assert tracker.client.get_run(run.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_goes_away(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """A real server behind a line that is cut and mended."""
    with mlflow_server(workspace) as port, Line(port) as line:
        tracker = Tracker(f"http://127.0.0.1:{line.port}")
        three_epochs(tracker, line.cut)
        assert capsys.readouterr().err.count("The work goes on") == 1
        line.mend()
        tracker.sender.patience.try_now()
        tracker.close()
        assert recorded(tracker, "k1")[:2] == ("FINISHED", {"epoch": [1, 2, 3], "selection": [1, 2, 3]})
        assert recorded(tracker, "k2")[1] == {"epoch": [1], "selection": [1]}
        # A version of a model whose answer is lost is there once.
        tracker.client.create_registered_model("m")
        line.loses_answers = True
        with pytest.raises(TrackingError):
            tracker.client.create_model_version("m", "s3://bucket/m")
        line.loses_answers = False
        assert len(tracker.client.search_model_versions("name = 'm'")) == 1


# The folder: its name, its place, its copies


def logged(tracker: Tracker, key: str | None = None) -> TrackedRun:
    """A run with the artifact params.yaml, and the key of a trial."""
    run = tracker.open("finetune", tags=TAGS, params={}, key=key)
    run.log_artifact(Path("params.yaml"))
    return run


def artifacts(tracker: Tracker, run: TrackedRun) -> list[str]:
    return [file.path for file in tracker.client.list_artifacts(run.run_id)]


@pytest.mark.parametrize("name", ["50%25 off", "feature%2Flogin", "what?now", "a?uri=true", "a#b", "%(here)s", "ü x"])
def test_a_folder_of_any_name_holds_its_database_and_artifacts(
    tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    shutil.copy(mlflow_store, tmp_path / name / "mlflow.db")
    monkeypatch.chdir(tmp_path / name)
    Path("params.yaml").touch()
    tracker = Tracker()
    run = logged(tracker)
    assert artifacts(tracker, run) == ["params.yaml"]
    assert {path.name for path in Path().iterdir()} == {".locks", "mlartifacts", "mlflow.db", "params.yaml"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(Tracker(database_uri(Path("mlflow.db"))).client.search_runs([tracker.experiment_id])) == 1


def test_a_moved_folder_keeps_its_runs_and_takes_its_artifacts_along(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking._tracking_service import utils

    before = Tracker()
    run = logged(before, "k")
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    workspace.folder.rename(moved)
    monkeypatch.chdir(moved)
    utils._artifact_repos_cache.clear()  # as in the next process
    tracker = Tracker()
    assert tracker.place.id == before.place.id
    assert logged(tracker, "k").run_id == run.run_id
    assert artifacts(tracker, run) == ["params.yaml"]
    assert artifacts(tracker, logged(tracker)) == ["params.yaml"]
    tracker.close_abandoned("finetune", "")
    assert tracker.client.get_run(run.run_id).info.status == "KILLED"
    assert not workspace.folder.exists()


def test_a_copy_writes_beside_itself_and_leaves_the_originals_runs_alone(
    workspace: Workspace, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one store, and each with its own."""
    shared = tmp_path_factory.mktemp("store") / "shared.db"
    shutil.copy("mlflow.db", shared)
    original = Tracker(database_uri(shared))
    finished, going_on = logged(original, "finished"), logged(original, "going on")
    finished.end()
    logged(Tracker())
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(tmp_path, copy, symlinks=True)
    monkeypatch.chdir(copy)
    tracker = Tracker(database_uri(shared))
    assert tracker.place.id != original.place.id
    tracker.close_abandoned("finetune", "")
    assert tracker.client.get_run(going_on.run_id).info.status == "RUNNING"
    assert logged(tracker, "going on").run_id != going_on.run_id
    assert tracker.find("finished") == finished.run_id, "the original's run trained what the copy reuses"
    assert Tracker(database_uri(shared)).place == tracker.place
    assert artifacts(tracker, finished) == ["params.yaml"]
    assert (shared.parent / "mlartifacts").is_dir()
    own = Tracker()
    assert artifacts(own, logged(own)) == ["params.yaml"]
    runs = own.client.search_runs([own.experiment_id])
    assert all(run.info.artifact_uri.startswith((copy / "mlartifacts").as_uri()) for run in runs)
    monkeypatch.chdir(tmp_path)
    assert Tracker().place.id == original.place.id


def test_a_copy_whose_original_is_gone_is_a_move_on_one_machine_alone(
    workspace: Workspace, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `mv` to another disk, or by rsync to another machine, where the original may go on."""
    before = Tracker().place
    here = tmp_path_factory.mktemp("elsewhere")
    for name, host in (("same", before.host), ("other", "another-machine")):
        shutil.copytree(tmp_path, here / name, symlinks=True)
        stored = json.loads((here / name / HERE.folder_id).read_text())
        (here / name / HERE.folder_id).write_text(json.dumps(stored | {"path": "/nowhere", "host": host}))
    monkeypatch.chdir(here / "same")
    assert Tracker().place.id == before.id
    monkeypatch.chdir(here / "other")
    other = Tracker().place
    assert other.id != before.id
    assert other.former == (before.id,)


@pytest.mark.parametrize("content", ["0123456789012345", "", "{", '{"id": "x"}', "[]"])
def test_an_identity_of_before_or_a_broken_one(workspace: Workspace, content: str) -> None:
    Path(".locks").mkdir()
    HERE.folder_id.write_text(content)
    place = Tracker().place
    assert (place.id == content) == (len(content) == 16)
    assert Tracker().place == place


def test_a_store_whose_artifacts_are_gone_gets_new_ones_beside_it(
    workspace: Workspace, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As one that a project made which has since moved; one that is there stays."""
    shared = tmp_path_factory.mktemp("store") / "shared.db"
    shutil.copy("mlflow.db", shared)
    made_there = tmp_path_factory.mktemp("other project") / "mlartifacts"
    made_there.mkdir()
    from mlflow import MlflowClient

    MlflowClient(database_uri(shared)).create_experiment(EXPERIMENT, artifact_location=made_there.as_uri())
    tracker = Tracker(database_uri(shared))
    assert artifacts(tracker, logged(tracker)) == ["params.yaml"]
    assert len(list(made_there.iterdir())) == 1
    shutil.rmtree(made_there)
    tracker = Tracker(database_uri(shared))
    assert artifacts(tracker, logged(tracker)) == ["params.yaml"]
    assert not made_there.exists()
    assert (shared.parent / "mlartifacts").is_dir()


def test_a_deleted_experiment_says_how_to_restore_it(workspace: Workspace) -> None:
    tracker = Tracker()
    tracker.client.delete_experiment(tracker.experiment_id)
    line = workspace.stage("simulate").error()
    command = f"mlflow experiments restore -x {tracker.experiment_id}"
    assert all(part in line for part in ("the experiment 'early-exit'", "was deleted", command, "mlflow gc")), line
    assert workspace.files() == set()
    tracker.client.restore_experiment(tracker.experiment_id)
    assert workspace.stage("simulate").code == 0


@pytest.mark.parametrize(
    ("stage", "outputs"),
    [
        ("latency", ["latency/demo-sentences.json"]),
        ("attack", [f"attack/demo-sentences.{end}" for end in ("json", "html", "parquet")]),
    ],
)
def test_an_instance_that_is_not_asked_for_has_no_run(workspace: Workspace, stage: str, outputs: list[str]) -> None:
    workspace.write_params({"latency.tasks": [], "attack.tasks": {}})
    assert workspace.stage(stage, "demo-sentences").code == 0
    assert all((workspace.folder / "outputs" / name).is_file() for name in outputs)
    tracker = Tracker()
    assert tracker.client.search_runs([tracker.experiment_id]) == []


def test_a_stage_that_fails_leaves_a_failed_run(workspace: Workspace) -> None:
    assert workspace.stage("trace", "demo-sentences").code == 1
    tracker = Tracker()
    assert [run.info.status for run in tracker.client.search_runs([tracker.experiment_id])] == ["FAILED"]


@pytest.mark.slow
@pytest.mark.parametrize("folders", [["a", "a", "a"], ["a", "b", "c"]])
def test_a_fresh_database_opened_by_several_drivers_at_once(tmp_path: Path, folders: list[str]) -> None:
    for folder in {*folders}:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pipeline").symlink_to(ROOT / "pipeline")
    uri = None if folders == ["a", "a", "a"] else f"sqlite:///{tmp_path}/shared/mlflow.db"
    opened = f"from pipeline.running.mlflow.tracker import Tracker; t = Tracker({uri!r}); "
    code = f"{opened} t.open('x', tags={{}}, params={{}}).end()"
    drivers = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path / folder) for folder in folders]
    assert [driver.wait(timeout=300) for driver in drivers] == [0, 0, 0]
    count = f"{opened} print(len(t.client.search_runs([t.experiment_id])))"
    found = subprocess.run(
        [sys.executable, "-c", count], cwd=tmp_path / "a", capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["3"]


def test_the_commit_of_code_without_git_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", os.fspath(tmp_path.parent))
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    assert git_commit() == "unknown"
    monkeypatch.setenv(COMMIT_VARIABLE, "abc")
    assert git_commit() == "abc"
