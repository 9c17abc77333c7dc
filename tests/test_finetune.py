"""Trials: which there are, which run, and what a kill or a failure leaves behind. On a real Ray cluster."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TrackingError
from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import ModelGroup, Selected, Trials
from pipeline.running.mlflow.tracker import Tracker
from pipeline.training.groups import plan_of
from pipeline.training.plan import read_history, read_result
from pipeline.training.trial import train
from stages import finetune
from tests import toy_trials
from tests.conftest import POINTERS
from tests.prepared import CONTEXT
from tests.prepared import prepared as prepared_task
from tests.ray_cluster import Cluster, clean_environment, ray_cluster
from tests.workspace import Done, Workspace, kill_group

pytestmark = pytest.mark.slow

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
        task = params.task(name)
        prepared_task(task, *params.backbones_for(task.modality), protocol=params.protocol)


def counted(done: Done) -> tuple[int, int, int]:
    """Trials run, reused, and of how many."""
    assert done.code == 0, done.err
    found = re.search(r"^(\d+) trials run, (\d+) reused of (\d+)$", done.out, re.MULTILINE)
    assert found, done.out
    run, reused, total = (int(number) for number in found.groups())
    return run, reused, total


def attempts() -> dict[str, int]:
    return {path.parent.name: len(path.read_text()) for path in HERE.trials.glob("*/attempts")}


def outcome() -> dict[str, ModelGroup]:
    selected = Selected.read(HERE.selected("demo-sentences"), "")
    return {group.method: group for group in selected.groups}


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
    ("rows that go through a model at a time", {"training.micro_batch": 5}, (0, 6, 6)),
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
        assert {path.name for path in HERE.all_models.iterdir()} == set(params.tasks), what
        assert {path.stem for path in HERE.all_selected.iterdir()} == set(params.tasks), what
        for group in outcome().values():
            assert [point.learning_rate for point in group.grid] == params.grid.learning_rate, what
            assert [trial.seed for trial in group.trials] == params.seeds, what
            for trial in group.trials:
                assert (HERE.model("demo-sentences", trial.key) / "model.safetensors").is_file(), what
        trials = Trials.read(HERE.trials_table, "").trials
        assert len(trials) == expected[2], what
        assert all(trial.mlflow_run_id and not trial.other_code for trial in trials), what
    tracker = Tracker()
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.trial != ''", max_results=1000)
    keys = [run.data.tags["trial"] for run in runs]
    assert sorted(keys) == sorted(set(keys)) == sorted(attempts())
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_what_the_store_lacks_of_finished_trials_is_logged_from_their_folders(toys: Workspace) -> None:
    """As after the death of a driver that had not heard of the last epochs, and with a store that is new."""
    toys.write_params({"seeds": [1, 2, 3], "attack.tasks": {}, "latency.tasks": []})
    prepared()
    assert counted(toys.stage("finetune")) == (3, 0, 3)
    runs = {record.key: record.mlflow_run_id for record in Trials.read(HERE.trials_table, "").trials}
    deaf, gone, _ = runs.values()
    assert gone
    Tracker().client.delete_run(gone)
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        database.execute("UPDATE runs SET status = 'KILLED', end_time = NULL WHERE run_uuid = ?", (deaf,))
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (deaf,))
    assert counted(toys.stage("finetune")) == (0, 3, 3)
    tracker = Tracker()
    for record in Trials.read(HERE.trials_table, "").trials:
        assert record.mlflow_run_id
        assert (record.mlflow_run_id == runs[record.key]) == (runs[record.key] != gone)
        run = tracker.client.get_run(record.mlflow_run_id)
        assert run.info.status == "FINISHED"
        assert run.data.metrics.keys() >= {"best_epoch", "best_selection", "epoch", "selection"}
        for metric in ("epoch", "best_epoch"):
            assert len(tracker.client.get_metric_history(run.info.run_id, metric)) == 1
        assert "result.json" in [file.path for file in tracker.client.list_artifacts(run.info.run_id)]


def test_a_trial_that_fails_is_named_and_the_others_go_on(toys: Workspace) -> None:
    settings = {"grid.learning_rate": [0.001, 2.0], "seeds": [1, 2], "runtime": {"retries": 5}}
    toys.write_params({**settings, "on_missing": "report"})
    prepared()
    done = toys.stage("finetune")
    assert counted(done) == (3, 0, 3)
    (failed,) = outcome()["joint"].failed
    assert attempts()[failed.key] == 2, "a second time for the same reason is the last"
    reason = "FloatingPointError: training loss is nan in epoch 2; lower the learning rate"
    label = "demo-sentences/demo-albert/joint bs=20 lr=2 seed=1"
    assert re.search(rf"^\[\d/3\] {label}: FAILED: {reason}, \d+ s,", done.out, re.MULTILINE), done.out
    assert f"failed: {label}: {reason}; see runs/trials/{failed.key}/error.txt" in done.out
    assert done.out.splitlines()[-1].startswith("1 of 3 trials failed; ")
    assert failed.reason == reason
    assert "lower the learning rate" in (HERE.trial(failed.key) / "error.txt").read_text()
    assert [trial.seed for trial in outcome()["joint"].trials] == [1, 2]
    tracker = Tracker()
    found = tracker.client.search_runs([tracker.experiment_id], f"tags.trial = '{failed.key}'")
    assert [run.info.status for run in found] == ["FAILED"]
    # It has no marker, so that it runs again once what made it fail is mended.
    assert counted(toys.stage("finetune")) == (1, 2, 3)
    assert attempts()[failed.key] == 4


def test_a_missing_point_ends_the_stage_when_all_else_has_run(toys: Workspace) -> None:
    settings = {"grid.learning_rate": [0.001, 2.0], "seeds": [1, 2]}
    toys.write_params(settings)
    prepared()
    for tried in (2, 4):
        line = toys.stage("finetune").error()
        assert line.startswith(
            "finetune: 1 of the grid's points failed: demo-sentences/demo-albert/joint bs=20 lr=2 seed=1 "
            f"(FloatingPointError: training loss is nan in epoch {tried}; lower the learning rate); all else has run "
        )
        assert line.endswith("set on_missing: report to choose without them")
        assert sorted(attempts().values()) == [1, 1, tried], "what has run is kept"
        assert not HERE.all_selected.exists()
    toys.write_params({**settings, "grid.learning_rate": [0.001]})
    assert counted(toys.stage("finetune")) == (0, 2, 2)
    toys.write_params({**settings, "on_missing": "report"})
    assert counted(toys.stage("finetune")) == (1, 2, 3)
    assert [point.selection is None for point in outcome()["joint"].grid] == [False, True]


@pytest.mark.parametrize(
    ("rate", "tries", "reason"),
    [
        (toy_trials.REFUSED, 1, "the rows are gone; put them back"),
        (toy_trials.CHANGING, 3, "RuntimeError: out of d"),
        (toy_trials.KILLED, 3, "its worker was killed, most likely for want of memory; run fewer side by side"),
        (toy_trials.HUNGRY, 2, "out of memory; run fewer side by side (runtime.workers)"),
        (2.0, 2, "FloatingPointError: training loss is nan in epoch 2; lower the learning rate"),
    ],
)
def test_only_what_may_end_otherwise_is_tried_again(toys: Workspace, rate: float, tries: int, reason: str) -> None:
    """And the reason stands in the one line with which the stage ends."""
    toys.write_params({"grid.learning_rate": [rate], "runtime": {"retries": 2}})
    prepared()
    line = toys.stage("finetune").error()
    assert f"demo-sentences/demo-albert/joint: no trial of its grid finished ({reason}" in line
    ((key, count),) = attempts().items()
    assert count == tries
    assert f"see error.txt in the trial folders {key}; mend the settings" in line
    assert reason in (HERE.trial(key) / "error.txt").read_text()
    assert not Path("outputs/selected").exists()


def test_what_a_search_stops_goes_on_in_another(toys: Workspace) -> None:
    """The smallest learning rate is the best, and one worker takes it first; so all others stop after an epoch."""
    rates = [0.1, 0.2, 0.3, 0.4]
    halved = {"training.epochs": 4, "grid.learning_rate": rates, "grid.search": "asha", "seeds": [1, 2]}
    toys.write_params(halved)
    prepared()
    done = toys.stage("finetune")
    assert counted(done) == (5, 0, 5)
    assert "3 trials stopped by their search: 7 epochs trained, at most 9 saved" in done.out
    assert re.search(r"lr=0.2 seed=1: selection 0.8000, stopped by its search after epoch 1, \d+ s", done.out), done.out
    (before,) = outcome().values()
    assert [point.stopped_after for point in before.grid] == [None, 1, 1, 1]
    assert before.failed == ()
    assert before.search.model_dump() == {"method": "asha", "stopped": 3, "epochs": 7, "epochs_saved": 9}
    table = {record.key: record for record in Trials.read(HERE.trials_table, "").trials}
    assert [table[point.key].stopped_after for point in before.grid] == [None, 1, 1, 1]
    assert statuses() == ["FINISHED"] * 2 + ["KILLED"] * 3

    assert counted(toys.stage("finetune")) == (0, 5, 5)
    assert outcome() == {"joint": before}
    toys.write_params(halved | {"grid.search": "grid"})
    assert counted(toys.stage("finetune")) == (3, 2, 5)
    assert {path.read_text() for path in HERE.trials.glob("*/epochs")} == {"xxxx"}, "no epoch is trained twice"
    assert outcome()["joint"].search.model_dump() == {"method": "grid", "stopped": 0, "epochs": 16, "epochs_saved": 0}
    assert statuses() == ["FINISHED"] * 5, "in the runs that they had"

    toys.write_params(halved | {"grid.search": "bayes", "grid.trials": 6})
    assert counted(toys.stage("finetune")) == (7, 0, 7)
    (found,) = outcome().values()
    assert found.learning_rate == min(point.learning_rate for point in found.grid)
    assert len(found.grid) == 6
    assert counted(toys.stage("finetune")) == (0, 7, 7)
    assert outcome() == {"joint": found}


def statuses() -> list[str]:
    """Those of all trials' runs."""
    tracker = Tracker()
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.trial != ''")
    return sorted(run.info.status for run in runs)


def test_a_seed_whose_parent_failed_is_named(toys: Workspace) -> None:
    lost = toy_trials.LOST_SEED
    toys.write_params({"methods": ["single_exit", "two_stage"], "seeds": [1, lost]})
    prepared()
    done = toys.stage("finetune")
    assert counted(done) == (3, 0, 4)
    parent, child = (outcome()[name] for name in ("single_exit", "two_stage"))
    assert [(failed.seed, failed.reason) for failed in parent.failed] == [(lost, "seed 13: lost; take another")]
    assert [failed.seed for failed in child.failed] == [lost]
    assert child.failed[0].reason == f"not run: the trial {parent.failed[0].key} that it starts from failed"
    assert f"two_stage bs=20 lr=0.001 seed={lost}: {child.failed[0].reason}" in done.out
    assert done.out.splitlines()[-1].startswith("2 of 4 trials failed; ")
    table = {trial.key for trial in Trials.read(HERE.trials_table, "").trials}
    assert parent.failed[0].key in table
    assert len(table) == 3


def test_a_disk_that_is_full_ends_the_run_with_its_name_and_nothing_is_lost(toys: Workspace) -> None:
    """All trials share it, so that the others would fail alike."""
    toys.write_params({"grid.learning_rate": [0.001, 0.002, 0.003]})
    prepared()
    (group,) = plan_of(load_params()).groups
    full = HERE.trial(plan_of(load_params()).grid(group)[1].key) / "attempts"  # which a toy writes first
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    line = toys.stage("finetune").error()
    assert line == f"finetune: {full.parent.absolute()}: No space left on device; free some space, then run it again"
    full.unlink()  # never to be read: it has no end
    assert [key for key in attempts() if read_result(HERE.trial(key))], "what had ended stays"


FULL = """
mkdir -p runs/trials && mount -t tmpfs -o size={size} none {disk}
"$@"; first=$?
mount -o remount,size=200m {disk} && "$@"; second=$?
cp -r runs/trials kept; echo "$first $second"
"""


@pytest.mark.cluster
@pytest.mark.parametrize(("disk", "size"), [("runs/trials", "900k"), ("runs", "1m")], ids=["worker", "driver"])
def test_a_small_disk_fills_up_and_is_made_larger(workspace: Workspace, disk: str, size: str) -> None:
    """Real trials, with Ray of our own, in a mount namespace; equal to a run that nothing disturbed."""
    workspace.write_params({"seeds": [1, 2, 3, 4], "training.epochs": 2})
    prepared()
    assert workspace.command("-m", "stages.finetune").code == 0
    expected = {trial.key: read_result(HERE.trial(trial.key)) for trial in outcome()["joint"].trials}
    for folder in (HERE.runs, HERE.outputs):
        shutil.rmtree(folder)
    script = FULL.format(disk=disk, size=size)
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "stages.finetune"]
    done = subprocess.run(
        command,
        cwd=workspace.folder,
        env=workspace.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "1 0", done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"finetune: \S*runs/\S*: No space left on device; free some space, then run it again", line)
    for key, result in expected.items():
        again = read_result(Path("kept") / key)
        assert result is not None
        assert again is not None
        assert again.weights_sha256 == result.weights_sha256


def test_what_fails_in_the_driver_ends_the_run_as_itself(toys: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a server that went away; Tune would pass on the text of a traceback."""
    from pipeline.running.observer import TrialObserver

    def gone(*arguments: Any) -> None:
        raise TrackingError("MLflow at http://host is gone; start it")

    monkeypatch.setattr(TrialObserver, "epoch", gone)
    toys.write_params()
    prepared()
    assert toys.stage("finetune").error() == "finetune: MLflow at http://host is gone; start it"


# What trials wait for


HOLD = """
import time
import ray

ray.init(log_to_driver=False, logging_level="ERROR")
holder = ray.remote(num_cpus=1)(type("Holder", (), {"held": lambda self: None})).remote()
ray.get(holder.held.remote())
print("held", flush=True)
time.sleep(15)
"""
"""Takes a cluster's core for fifteen seconds."""


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    """A cluster of one core that nobody scales."""
    with ray_cluster() as cluster:
        yield cluster


APART = """
from pipeline.running.ray import resources
from pipeline.running.stage import run_stage
from stages import finetune
from tests import toy_trials

finetune.RUNNER = toy_trials.RUNNER
resources.FIRST = resources.NEXT = 1.0
run_stage("finetune", finetune.main, per_task=False)
"""


JOBS = """
from pathlib import Path
from pipeline.errors import exit_with_one_line
from pipeline.params import load_params
from pipeline.running.ray import resources
from pipeline.running.ray.jobs import fan_out

resources.FIRST = resources.NEXT = 1.0
with exit_with_one_line("jobs"):
    fan_out(["a", "b"], runner="tests.toy_jobs:run", root=Path("out"), runtime=load_params().runtime,
            done=lambda job, result: print(job, result, flush=True))
"""


def run_on(cluster: Cluster, workspace: Workspace, program: str) -> Done:
    """Run a program in a process of its own that joins a cluster.

    Not in this one: Ray takes what is left of another cluster's actors for those of this one that have their ids.
    """
    (workspace.folder / "tests").symlink_to(ROOT / "tests")
    return workspace.command("-c", program, HOME=cluster.environment["HOME"], RAY_ADDRESS=f"127.0.0.1:{cluster.port}")


@contextmanager
def held(cluster: Cluster) -> Iterator[None]:
    """Someone else has the cluster's core for a while."""
    environment = cluster.environment | {"RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"  # noqa: PT018
        yield


@pytest.mark.parametrize("program", [APART, JOBS], ids=["trials", "jobs"])
@pytest.mark.parametrize(
    ("runtime", "parts"),
    [
        ({"threads": 2}, ["work needs 2 CPUs, which no node", "(1: 1 CPU, 0 GPU)", "lower runtime.threads"]),
        ({"gpus_per_trial": 0.5}, ["work needs 1 CPU and 0.5 GPU, which no node", "lower runtime.gpus_per_trial"]),
        ({"device": "cuda"}, ["work needs a GPU, which no node", "set runtime.device to auto or cpu"]),
    ],
)
def test_what_no_node_has_is_refused_before_training(
    workspace: Workspace, started: Cluster, program: str, runtime: dict[str, Any], parts: list[str]
) -> None:
    workspace.write_params({"runtime": runtime})
    prepared()
    done = run_on(started, workspace, program)
    assert done.code == 1
    line = done.err.splitlines()[-1]  # Ray names its log level before
    assert all(part in line for part in (*parts, "no autoscaler runs")), line
    assert "Traceback" not in done.err
    assert not HERE.trials.exists() or not list(HERE.trials.iterdir())


def test_the_device_is_named_and_a_busy_cluster_waited_for(workspace: Workspace, started: Cluster) -> None:
    workspace.write_params()
    prepared()
    with held(started):
        done = run_on(started, workspace, APART)
    assert counted(done) == (1, 0, 1)
    assert "device: cpu, since no node of the Ray cluster has a GPU now" in done.out
    waiting = r"^waiting for 1 CPU on the Ray cluster, \d+ s; free: 0 of 1 CPUs, 0 of 0 GPUs$"
    assert re.search(waiting, done.out, re.MULTILINE), done.out


def test_jobs_wait_for_a_busy_cluster(workspace: Workspace, started: Cluster) -> None:
    workspace.write_params()
    with held(started):
        done = run_on(started, workspace, JOBS)
    assert re.search(r"^waiting for 1 CPU on the Ray cluster, \d+ s; free: 0 of 1 CPUs", done.out, re.MULTILINE), done
    assert {"a A", "b B"} <= {*done.out.splitlines()}


def test_a_gpu_that_an_autoscaler_can_start_is_waited_for(
    workspace: Workspace,
) -> None:
    """The GPU is one by name alone, which is enough for toys."""
    with ray_cluster({"CPU": 1, "GPU": 1}) as cluster:
        workspace.write_params({"runtime": {"gpus_per_trial": 0.7}})
        prepared()
        done = run_on(cluster, workspace, APART)
    assert counted(done) == (1, 0, 1)
    assert re.search(r"^waiting for 1 CPU and 0.7 GPU on the Ray cluster, \d+ s; free: 1 of 1", done.out, re.MULTILINE)


@pytest.mark.cluster
@pytest.mark.parametrize("program", ["trials", "jobs"])
def test_a_head_without_cores_gets_workers_from_none(program: str, workspace: Workspace) -> None:
    """As KubeRay starts it: the head runs nothing, and workers come when there is work."""
    with ray_cluster({"CPU": 1}, cpus=0) as cluster:
        workspace.write_params()
        prepared()
        done = run_on(cluster, workspace, APART if program == "trials" else JOBS)
    assert re.search(r"^waiting for 1 CPU on the Ray cluster, \d+ s; free: 0 of 0 CPUs", done.out, re.MULTILINE), done
    if program == "trials":
        assert counted(done)[0] > 0
    else:
        assert {"a A", "b B"} <= {*done.out.splitlines()}


@pytest.mark.parametrize(
    ("runtime", "parts"),
    [
        ({"gpus_per_trial": 0.5}, ["runtime.gpus_per_trial: 0.5", "this machine has no GPU", "RAY_ADDRESS"]),
        ({"device": "cuda"}, ["runtime.device: 'cuda' and no GPU is visible", "auto or cpu"]),
    ],
)
def test_a_gpu_that_this_machine_lacks_is_refused_before_ray_starts(
    workspace: Workspace, runtime: dict[str, Any], parts: list[str]
) -> None:
    workspace.write_params({"runtime": runtime})
    prepared()
    temporary = workspace.folder / "tmp"
    temporary.mkdir()
    line = workspace.command("-m", "stages.finetune", CUDA_VISIBLE_DEVICES="", RAY_TMPDIR=str(temporary)).error()
    assert all(part in line for part in parts), line
    assert not list(temporary.iterdir())
    assert not list(HERE.trials.iterdir())


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"TMPDIR": "long"}, ["Ray's sockets do not fit below", "x" * 50, "set RAY_TMPDIR", "41 characters"]),
        ({"HOME": "/dev/null/home"}, ["Ray cannot start", "HOME (/dev/null/home)", "can be written"]),
        ({"RAY_TMPDIR": "/dev/null/tmp"}, ["Ray cannot start", "TMPDIR"]),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_a_place_where_ray_cannot_start(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], parts: list[str]
) -> None:
    workspace.write_params()
    prepared()
    long = tmp_path_factory.mktemp("x" * 60)
    given = {name: str(long) if value == "long" else value for name, value in environment.items()}
    line = workspace.command("-m", "stages.finetune", **given).error()
    assert all(part in line for part in parts), line
    assert not list(HERE.trials.iterdir())


# The real thing


class Killed(BaseException):
    """What nothing catches."""


def test_a_killed_text_trial_goes_on_after_its_last_epoch_to_the_same_weights(workspace: Workspace) -> None:
    workspace.write_params({"training.epochs": 3, "training.stop_after": 3})
    prepared()
    params = load_params()
    group = plan_of(params).groups[0]
    settings = {**group.settings, "batch_size": 16, "learning_rate": 1e-3, "seed": 1}

    heard: list[dict[str, float]] = []

    def kill(row: dict[str, float]) -> None:
        heard.append(row)
        if row["epoch"] == 2:
            raise Killed

    told: list[dict[str, float]] = []
    with pytest.raises(Killed):
        train(settings, group.names, HERE.trial("killed"), CONTEXT, kill)
    again = train(settings, group.names, HERE.trial("killed"), CONTEXT, told.append)
    assert told[:2] == heard  # to the microsecond: they are reported again, not trained again
    assert [row["epoch"] for row in told] == [1, 2, 3]
    whole = train(settings, group.names, HERE.trial("whole"), CONTEXT, lambda row: None)
    assert again.epochs_run == whole.epochs_run == 3
    one, other = ((HERE.trial(name) / "model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == other
    assert not list(HERE.trial("killed").glob("resume*"))


def test_a_score_that_is_not_defined_does_not_undo_the_training(workspace: Workspace) -> None:
    """One selection row has no correlation."""
    rows = {"train": 12, "selection": 1, "report": 4}
    workspace.write_params({"tasks": {"demo-similarity": {"rows": rows}}, "latency.tasks": [], "attack.tasks": {}})
    prepared()
    group = plan_of(load_params()).groups[0]
    settings = {**group.settings, "batch_size": 4, "learning_rate": 1e-3, "seed": 1}
    result = train(settings, group.names, HERE.trial("k"), CONTEXT, lambda row: None)
    assert result.metrics["score_exit_01"] is None
    assert read_result(HERE.trial("k")) == result


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.cluster), signal.SIGTERM]
)
def test_stopped_in_mid_grid_and_started_again(joined: Workspace, how: signal.Signals) -> None:
    joined.write_params({"grid.learning_rate": [0.001, 0.002], "seeds": [1, 2], "training.epochs": 2})
    prepared()
    first = joined.start("-m", "stages.finetune")
    try:
        deadline = time.monotonic() + 300
        while not list(HERE.trials.glob("*/result.json")):
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]  # noqa: PT018
            time.sleep(0.05)
        if how != signal.SIGKILL:
            first.send_signal(how)
            said = first.communicate(timeout=120)[0]
            assert first.returncode == 128 + how
            assert f"finetune: stopped by {how.name}; run it again, what is finished is kept" in said
            assert not Path("outputs/selected").exists()
    finally:
        if first.poll() is None:
            kill_group(first)
    done = {path: path.stat().st_mtime_ns for path in HERE.trials.glob("*/result.json")}
    tracker = Tracker()
    query = [tracker.experiment_id], "attributes.status = 'RUNNING'"
    assert bool(tracker.client.search_runs(*query)) == (how == signal.SIGKILL)

    second = joined.command("-m", "stages.finetune")
    run, reused, total = counted(second)
    assert (run, reused, total) == (3 - len(done), len(done), 3)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(HERE.trials.glob("*/result.json"))) == 3
    assert tracker.client.search_runs(*query) == []
    runs = tracker.client.search_runs([tracker.experiment_id], "tags.stage = 'finetune'", max_results=100)
    trials = [run for run in runs if "trial" in run.data.tags]
    assert sorted(run.data.tags["trial"] for run in trials) == sorted(path.name for path in HERE.trials.iterdir())
    assert len(trials) == 3
    assert sorted(run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags) == [
        "FINISHED",
        "KILLED",
    ]
    (row,) = [run for run in runs if run.data.tags.get("kind") == "row"]
    assert row.data.metrics == {"selection": max(point.selection or 0 for point in outcome()["joint"].grid)}
    assert set(row.data.tags["keys"].split(",")) == {trial.key for trial in outcome()["joint"].trials}
    for trial in trials:
        assert trial.data.metrics.keys() >= {"selection", "train_loss", "score_exit_01", "score_exit_12"}
        assert trial.data.params["learning_rate"] in ("0.001", "0.002")
        history = tracker.client.get_metric_history(trial.info.run_id, "selection")
        assert sorted({entry.step for entry in history}) == [1, 2]
    group = outcome()["joint"]
    assert [trial.seed for trial in group.trials] == [1, 2]
    assert group.layers == 12


@pytest.mark.parametrize(
    ("how", "group"),
    [
        pytest.param(signal.SIGINT, True, id="SIGINT-group"),
        pytest.param(signal.SIGTERM, False, id="SIGTERM-process"),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.cluster, id="SIGINT-process"),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.cluster, id="SIGTERM-group"),
    ],
)
def test_a_signal_to_a_stage_with_ray_of_its_own(workspace: Workspace, how: signal.Signals, group: bool) -> None:
    """As Ctrl-C, Slurm, Kubernetes and CI send it: no stack, no run left RUNNING, every epoch on disk recorded."""
    workspace.write_params({"grid.learning_rate": [0.001, 0.002], "training.epochs": 40, "training.stop_after": 40})
    prepared()
    stage = workspace.start("-m", "stages.finetune")
    try:
        deadline = time.monotonic() + 300
        while not any(len(read_history(path)) >= 2 for path in HERE.trials.glob("*")):
            assert stage.poll() is None and time.monotonic() < deadline, stage.communicate()[0]  # noqa: PT018
            time.sleep(0.05)
        os.killpg(stage.pid, how) if group else stage.send_signal(how)
        said = stage.communicate(timeout=120)[0]
    finally:
        if stage.poll() is None:
            kill_group(stage)
    assert stage.returncode == 128 + how, said
    assert f"finetune: stopped by {how.name}; run it again" in said
    assert not re.search(r"Traceback|received at time|\*\*\* SIG|Aborted", said), said
    tracker = Tracker()
    runs = tracker.client.search_runs([tracker.experiment_id])
    assert {run.info.status for run in runs} == {"KILLED"}
    for run in runs:
        if "trial" in run.data.tags:
            history = tracker.client.get_metric_history(run.info.run_id, "epoch")
            folder = HERE.trial(run.data.tags["trial"])
            assert [entry.step for entry in history] == [int(row["epoch"]) for row in read_history(folder)]
    assert any((path / "resume.json").is_file() for path in HERE.trials.iterdir())


def test_ray_of_our_own_listens_on_loopback_only(tmp_path: Path) -> None:
    code = (
        "import psutil, ray, subprocess\nfrom pipeline.running.settings import Runtime\n"
        "from pipeline.running.ray.cluster import connect\n"
        "connect(Runtime(workers=1))\n"
        "ray.get(ray.remote(lambda: 1).remote())\n"
        "listening = subprocess.run(['ss', '-ltnpH'], capture_output=True, text=True, check=True).stdout\n"
        "own = [psutil.Process(), *psutil.Process().children(recursive=True)]\n"
        "print(*(s for s in listening.splitlines() if any(f'pid={p.pid},' in s for p in own)), sep='\\n')\n"
        "ray.shutdown()"
    )
    environment = clean_environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    listening = [line.split()[3] for line in done.stdout.splitlines()]
    assert len(listening) > 3, done.stdout + done.stderr
    local = {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}
    assert {address.rpartition(":")[0] for address in listening} <= local, done.stdout


def test_what_ray_start_left_on_this_machine_is_not_joined(tmp_path: Path) -> None:
    """`ray start` names its cluster in a file, which stays there after a crash."""
    folder = Path(tempfile.mkdtemp(prefix="ee-ray-"))  # not pytest's: paths of Unix sockets may have 107 characters
    try:
        (folder / "ray").mkdir()
        (folder / "ray/ray_current_cluster").write_text("127.0.0.1:6379")
        code = (
            "import ray\nfrom pipeline.running.settings import Runtime\n"
            "from pipeline.running.ray.cluster import connect\n"
            "connect(Runtime(workers=1)); print(ray.cluster_resources()['CPU']); ray.shutdown()"
        )
        environment = clean_environment(folder) | {"RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.stdout.split()[-1] == "1.0", done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)
