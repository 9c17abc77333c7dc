"""Trials: which there are, which run, and what a kill or a failure leaves behind. On a real Ray cluster."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TrialsFailedError
from pipeline.identity.imports import ROOT
from pipeline.params import load_params
from pipeline.running.mlflow import Tracker
from pipeline.running.ray.tune import _Ledger
from pipeline.storage import DATA, RUNS
from pipeline.tasks.prepare import prepare
from pipeline.training.plan import Group, Plan, Trial, finished, prune, read_result, run_trial
from pipeline.training.trial import plan as plan_of
from pipeline.training.trial import train_text
from stages import finetune
from tests import toy_trials
from tests.conftest import POINTERS
from tests.ray_cluster import clean_environment
from tests.workspace import Done, Workspace, kill_group

# The plan


def plan(
    groups: tuple[Group, ...] = (Group("a", {"task": "a"}),),
    rates: tuple[float, ...] = (0.1, 0.2),
    seeds: tuple[int, ...] = (1, 2, 3),
) -> Plan:
    return Plan(groups, (16, 32), rates, seeds)


def played(todo: Plan, scores: Mapping[tuple[int, float], float | None]) -> dict[str, dict[str, float] | None]:
    """Run a plan to its end: a trial scores by its grid point; None fails."""
    results: dict[str, dict[str, float] | None] = {}
    while waiting := [trial for trial in todo.known(results) if trial.key not in results]:
        value = scores[waiting[0].settings["batch_size"], waiting[0].settings["learning_rate"]]
        results[waiting[0].key] = None if value is None else {"selection": value}
    return results


SCORES: dict[tuple[int, float], float | None] = {(16, 0.1): 0.5, (16, 0.2): 0.9, (32, 0.1): 0.9, (32, 0.2): 0.7}


def points(trials: list[Trial]) -> list[tuple[int, float, int]]:
    return [(t.settings["batch_size"], t.settings["learning_rate"], t.settings["seed"]) for t in trials]


def test_a_grid_with_the_first_seed_then_the_chosen_point_with_the_others() -> None:
    todo = plan()
    grid = [(16, 0.1, 1), (16, 0.2, 1), (32, 0.1, 1), (32, 0.2, 1)]
    assert points(todo.known({})) == grid
    results = played(todo, SCORES)
    assert points(todo.known(results)) == [*grid, (16, 0.2, 2), (16, 0.2, 3)]  # the first of the best
    assert len(results) == todo.total == 6
    chosen = todo.selected(todo.groups[0], results)
    assert points(list(chosen.values())) == [(16, 0.2, seed) for seed in (1, 2, 3)]
    assert list(chosen) == [1, 2, 3]


def test_failed_and_undefined_points_are_not_chosen() -> None:
    todo = plan()
    results = played(todo, SCORES | {(16, 0.2): None, (32, 0.1): float("nan")})
    assert points([todo.best(todo.groups[0], results)]) == [(32, 0.2, 1)]  # type: ignore[list-item]
    assert points(todo.failures(results)) == [(16, 0.2, 1)]
    todo.check(results)


def test_a_group_of_which_all_failed_is_named() -> None:
    todo = plan()
    results = played(todo, dict.fromkeys(SCORES))
    assert len(results) == 4
    with pytest.raises(TrialsFailedError, match=r"^a: no trial of its grid finished; see error.txt .*; mend the set"):
        todo.check(results)


def test_a_child_starts_from_the_chosen_trial_of_the_same_seed() -> None:
    todo = plan((Group("a", {"task": "a"}), Group("b", {"task": "a", "method": "b"}, parent="a")))
    results = played(todo, SCORES)
    assert len(results) == todo.total == 12
    parents = todo.selected(todo.groups[0], results)
    children = todo.selected(todo.groups[1], results)
    assert {seed: trial.parent for seed, trial in children.items()} == {s: t.key for s, t in parents.items()}
    grid = [t for t in todo.known(results) if t.group == "b" and t.settings["seed"] == 1]
    assert {t.parent for t in grid} == {parents[1].key}
    # Without its parent a child is not known; without one seed of the parent, that seed of the child is not.
    assert all(t.group == "a" for t in todo.known({}))
    results[parents[2].key] = None
    assert list(todo.selected(todo.groups[1], results)) == [1, 3]


def test_the_key_is_what_changes_the_result() -> None:
    first = Trial("a", {"task": "a", "learning_rate": 1e-5, "seed": 1})
    assert first.key == Trial("other name", dict(reversed(first.settings.items()))).key
    assert first.key == "4ae030e597dbc79a", "a stored trial would be run again"
    others = [Trial("a", {**first.settings, name: value}) for name, value in (("seed", 2), ("parent", "k"))]
    assert len({first.key, *(other.key for other in others)}) == 3


def test_the_marker_is_last_and_a_finished_trial_is_not_run_again(tmp_path: Path) -> None:
    ran = []

    def train(folder: Path) -> dict[str, Any]:
        assert not (folder / "result.json").exists()
        ran.append(1)
        (folder / "model.safetensors").touch()
        return {"selection": 1.0}

    def killed(folder: Path) -> dict[str, Any]:
        (folder / "model.safetensors").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial({"seed": 1}, tmp_path / "k", killed)
    assert read_result(tmp_path / "k") is None
    assert run_trial({"seed": 1}, tmp_path / "k", train) == run_trial({"seed": 1}, tmp_path / "k", train)
    assert len(ran) == 1
    (tmp_path / "k/result.json").write_text('{"selection": 0.')  # a disk that was full
    assert run_trial({"seed": 1}, tmp_path / "k", train) == {"selection": 1.0}
    assert len(ran) == 2


def test_weights_of_points_that_were_not_chosen_are_dropped(tmp_path: Path) -> None:
    todo = plan()
    results = played(todo, SCORES | {(32, 0.2): None})
    for trial in todo.known(results):
        (tmp_path / trial.key).mkdir()
        if results[trial.key] is not None:
            (tmp_path / trial.key / "model.safetensors").touch()
            (tmp_path / trial.key / "result.json").write_text(json.dumps(results[trial.key]))
    failures = dict.fromkeys([trial.key for trial in todo.failures(results)])
    assert finished(tmp_path, todo, failures) == results
    prune(tmp_path, todo, results)
    kept = {path.parent.name for path in tmp_path.glob("*/model.safetensors")}
    assert kept == {trial.key for trial in todo.selected(todo.groups[0], results).values()}
    assert finished(tmp_path, todo, failures) == results
    # Chosen for the first time, without weights: not finished.
    smaller = Plan(todo.groups, (32,), (0.1,), (1,))
    assert finished(tmp_path, smaller) == {}


# What runs


CLUSTER = """
import ray
ray.init(include_dashboard=False, num_cpus=1, log_to_driver=False, object_store_memory=100 * 2**20)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A one-core Ray cluster, and the environment of those that join it; it ends with its process's input.

    Its token goes below the home folder, hence one of its own.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(POINTERS)}
    environment = {"HOME": str(tmp_path_factory.mktemp("home")), "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, env=kept | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdin and head.stdout  # noqa: PT018
        address = head.stdout.readline().strip()
        yield environment | {"RAY_ADDRESS": address}
        head.stdin.write("\n")
        head.stdin.close()


@pytest.fixture
def joined(workspace: Workspace, cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose stages join the cluster."""
    (workspace.folder / "tests").symlink_to(ROOT / "tests")
    from ray._raylet import Config

    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    Config.initialize("")  # this process may have read RAY_AUTH_MODE before
    workspace.environment.update(cluster)
    return workspace


@pytest.fixture
def toys(joined: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Its trials are toys."""
    monkeypatch.setattr(finetune, "RUNNER", toy_trials.RUNNER)
    return joined


def prepared() -> None:
    params = load_params()
    for name in params.tasks:
        backbones = [params.backbone(backbone) for backbone in params.backbones]
        prepare(params.task(name), backbones, params.protocol, DATA / name, None)


def counted(done: Done) -> tuple[int, int, int]:
    """Trials run, reused, and of how many."""
    assert done.code == 0, done.err
    found = re.search(r"^(\d+) trials run, (\d+) reused of (\d+)$", done.out, re.MULTILINE)
    assert found, done.out
    run, reused, total = (int(number) for number in found.groups())
    return run, reused, total


def attempts() -> dict[str, int]:
    return {path.parent.name: len(path.read_text()) for path in RUNS.glob("*/attempts")}


def outcome() -> dict[str, Any]:
    path = Path("outputs/selected/demo-sentences.json")
    found: dict[str, Any] = {group["method"]: group for group in json.loads(path.read_text())["groups"]}
    return found


TWO_TASKS = {name: {"rows": {"train": 40, "selection": 12, "report": 12}} for name in ("demo-sentences", "demo-pairs")}

STEPS: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("the first time", {}, (1, 0, 1)),
    ("nothing new", {}, (0, 1, 1)),
    ("a seed", {"seeds": [1, 2]}, (1, 1, 2)),
    ("a grid point that is not chosen", {"grid.learning_rate": [0.001, 0.002]}, (1, 2, 3)),
    ("one that is chosen, with its seeds", {"grid.learning_rate": [0.001, 0.0005]}, (2, 1, 3)),
    ("back to a point whose weights went", {"grid.learning_rate": [0.001]}, (1, 1, 2)),
    ("methods, one from another's trials", {"methods": ["joint", "single_exit", "two_stage"]}, (4, 2, 6)),
    ("a criterion", {"evaluate.criteria": {"entropy": {}}}, (0, 6, 6)),
    ("threads", {"runtime.threads": 2}, (0, 6, 6)),
    ("a task", {"tasks": TWO_TASKS, "runtime.threads": 1}, (6, 6, 12)),
    ("one task less", {"tasks": {"demo-sentences": TWO_TASKS["demo-sentences"]}}, (0, 6, 6)),
]


def test_only_what_is_new_runs(toys: Workspace) -> None:
    changes: dict[str, Any] = {"attack.tasks": {}, "latency.tasks": []}
    for what, change, expected in STEPS:
        changes |= change
        toys.write_params(changes)
        prepared()
        before = attempts()
        assert counted(toys.stage("finetune")) == expected, what
        assert sum(attempts().values()) - sum(before.values()) == expected[0], what
        # Outputs speak of today's plan alone.
        params = load_params()
        assert {path.stem for path in Path("outputs/selected").iterdir()} == set(params.tasks), what
        for group in outcome().values():
            assert [point["learning_rate"] for point in group["grid"]] == params.grid.learning_rate, what
            assert [trial["seed"] for trial in group["trials"]] == params.seeds, what
        trials = json.loads(Path("outputs/finetune/trials.json").read_text())["trials"]
        assert len(trials) == expected[2], what
        assert all(trial["mlflow_run_id"] for trial in trials), what
    tracker = Tracker()
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.trial != ''", max_results=1000)
    keys = [run.data.tags["trial"] for run in runs]
    assert sorted(keys) == sorted(set(keys)) == sorted(attempts())
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_trial_that_fails_is_retried_and_named_and_the_others_go_on(toys: Workspace) -> None:
    toys.write_params({"grid.learning_rate": [0.001, 2.0], "seeds": [1, 2], "runtime": {"retries": 1}})
    prepared()
    done = toys.stage("finetune")
    assert counted(done) == (3, 0, 3)
    (failed,) = outcome()["joint"]["failed"]
    assert f"failed: demo-sentences/demo-albert/joint bs=20 lr=2 seed=1, see runs/finetune/{failed['key']}" in done.out
    assert attempts()[failed["key"]] == 2
    assert "lower the learning rate" in (RUNS / failed["key"] / "error.txt").read_text()
    assert [trial["seed"] for trial in outcome()["joint"]["trials"]] == [1, 2]
    tracker = Tracker()
    found = tracker.client.search_runs([tracker.experiment_id], f"tags.trial = '{failed['key']}'")
    assert [run.info.status for run in found] == ["FAILED"]
    # It has no marker, so that it runs again once what made it fail is mended.
    assert counted(toys.stage("finetune")) == (1, 2, 3)
    assert attempts()[failed["key"]] == 4


def test_a_grid_that_fails_whole_is_one_line(toys: Workspace) -> None:
    toys.write_params({"grid.learning_rate": [2.0], "runtime": {"retries": 0}})
    prepared()
    line = toys.stage("finetune").error()
    assert "demo-sentences/demo-albert/joint: no trial of its grid finished; see error.txt" in line
    assert next(iter(attempts())) in line
    assert not Path("outputs/selected").exists()


# The real thing


class Killed(BaseException):
    """What nothing catches."""


def test_a_killed_text_trial_goes_on_after_its_last_epoch_to_the_same_weights(workspace: Workspace) -> None:
    workspace.write_params({"training.epochs": 3, "training.stop_after": 3})
    prepared()
    params = load_params()
    group = plan_of(params).groups[0]
    settings = {**group.settings, "batch_size": 16, "learning_rate": 1e-3, "seed": 1}
    context = {"threads": 1, "device": "cpu", "mirror": None}

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise Killed

    epochs: list[float] = []
    with pytest.raises(Killed):
        train_text(settings, RUNS / "killed", context, kill)
    again = train_text(settings, RUNS / "killed", context, lambda row: epochs.append(row["epoch"]))
    assert epochs == [3]
    whole = train_text(settings, RUNS / "whole", context, lambda row: None)
    assert again["epochs_run"] == whole["epochs_run"] == 3
    one, other = ((RUNS / name / "model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == other
    assert not (RUNS / "killed/resume.pt").exists()


def test_a_score_that_is_not_defined_does_not_undo_the_training(workspace: Workspace) -> None:
    """One selection row has no correlation."""
    rows = {"train": 12, "selection": 1, "report": 4}
    workspace.write_params({"tasks": {"demo-similarity": {"rows": rows}}, "latency.tasks": [], "attack.tasks": {}})
    prepared()
    group = plan_of(load_params()).groups[0]
    settings = {**group.settings, "batch_size": 4, "learning_rate": 1e-3, "seed": 1}
    context = {"threads": 1, "device": "cpu", "mirror": None}
    result = train_text(settings, RUNS / "k", context, lambda row: None)
    assert result["metrics"]["score_exit_01"] is None
    assert read_result(RUNS / "k") == result


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_mid_grid_and_started_again(joined: Workspace, how: signal.Signals) -> None:
    joined.write_params({"grid.learning_rate": [0.001, 0.002], "seeds": [1, 2], "training.epochs": 2})
    prepared()
    first = joined.start("-m", "stages.finetune")
    try:
        deadline = time.monotonic() + 300
        while not list(RUNS.glob("*/result.json")):
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]  # noqa: PT018
            time.sleep(0.05)
        if how == signal.SIGINT:  # Ctrl-C, which Tune takes for an end like any other
            first.send_signal(how)
            said = first.communicate(timeout=120)[0]
            assert first.returncode == 1
            assert re.search(r"finetune: interrupted with \d trials to run; run it again", said)
            assert not Path("outputs/selected").exists()
    finally:
        if first.poll() is None:
            kill_group(first)
    done = {path: path.stat().st_mtime_ns for path in RUNS.glob("*/result.json")}
    tracker = Tracker()
    query = [tracker.experiment_id], "attributes.status = 'RUNNING'"
    assert tracker.client.search_runs(*query) or how == signal.SIGINT

    second = joined.command("-m", "stages.finetune")
    run, reused, total = counted(second)
    assert (run, reused, total) == (3 - len(done), len(done), 3)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(RUNS.glob("*/result.json"))) == 3
    assert tracker.client.search_runs(*query) == []
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.stage = 'finetune'", max_results=100)
    trials = [run for run in runs if "trial" in run.data.tags]
    assert sorted(run.data.tags["trial"] for run in trials) == sorted(path.name for path in RUNS.iterdir())
    assert len(trials) == 3
    ended = "FAILED" if how == signal.SIGINT else "KILLED"
    assert sorted(run.info.status for run in runs if "trial" not in run.data.tags) == sorted(["FINISHED", ended])
    for trial in trials:
        assert trial.data.metrics.keys() >= {"selection", "train_loss", "score_exit_01", "score_exit_12"}
        assert trial.data.params["learning_rate"] in ("0.001", "0.002")
        history = tracker.client.get_metric_history(trial.info.run_id, "selection")
        assert sorted({entry.step for entry in history}) == [1, 2]
    group = outcome()["joint"]
    assert [trial["seed"] for trial in group["trials"]] == [1, 2]
    assert group["layers"] == 12


def test_what_ray_start_left_on_this_machine_is_not_joined(tmp_path: Path) -> None:
    """`ray start` names its cluster in a file, which stays there after a crash."""
    folder = Path(tempfile.mkdtemp(prefix="ee-ray-"))  # not pytest's: paths of Unix sockets may have 107 characters
    try:
        (folder / "ray").mkdir()
        (folder / "ray/ray_current_cluster").write_text("127.0.0.1:6379")
        code = (
            "import ray; from pipeline.params import Runtime; from pipeline.running.ray.tune import _connect\n"
            "_connect(Runtime(workers=1)); print(ray.cluster_resources()['CPU']); ray.shutdown()"
        )
        environment = clean_environment(folder) | {"RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.stdout.split()[-1] == "1.0", done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_trial_whose_worker_never_came_up_is_one_failed_trial(tmp_path: Path) -> None:
    """Tune then tells of the end without a start."""
    told: list[str] = []

    class Told:
        def started(self, trial: Trial) -> None:
            told.append("started")

        def epoch(self, trial: Trial, metrics: Mapping[str, float]) -> None:
            told.append("epoch")

        def ended(self, trial: Trial, result: Mapping[str, Any] | None) -> None:
            told.append(f"ended {result}")

    ledger = _Ledger(plan(), tmp_path, Told(), progress=False)
    trial = ledger.next()
    assert trial is not None
    ledger.end(trial.key, None)
    assert told == ["started", "ended None"]
    assert ledger.results[trial.key] is None
