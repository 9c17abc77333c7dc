"""Runs in a real MLflow store: found again by their key, ended whatever happens, written by many processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.identity.imports import ROOT
from pipeline.identity.versions import COMMIT_VARIABLE, git_commit
from pipeline.layout import HERE
from pipeline.running.mlflow import Tracker
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
def test_a_fresh_database_opened_by_several_drivers_at_once(tmp_path: Path) -> None:
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    code = "from pipeline.running.mlflow import Tracker; Tracker().open('x', tags={}, params={}).end()"
    drivers = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(3)]
    assert [driver.wait(timeout=300) for driver in drivers] == [0, 0, 0]
    count = (
        "from pipeline.running.mlflow import Tracker; t = Tracker(); "
        "print(len(t.client.search_runs([t.experiment_id])))"
    )
    found = subprocess.run([sys.executable, "-c", count], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["3"]


def test_the_commit_of_code_without_git_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", os.fspath(tmp_path.parent))
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    assert git_commit() == "unknown"
    monkeypatch.setenv(COMMIT_VARIABLE, "abc")
    assert git_commit() == "abc"
