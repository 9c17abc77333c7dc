"""Machines that are lost under running trials, on a real cluster of a head and two nodes."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psutil
import pytest

from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.running.ray.deaths import ENDED
from pipeline.training.plan import read_result
from tests import steady_trials, toy_trials
from tests.memory_limit import memory_limit
from tests.ray_cluster import Cluster, Node, ray_cluster
from tests.test_finetune import counted, prepared
from tests.workspace import Done, Workspace, kill_group

pytestmark = pytest.mark.slow

STEADY = """
from pipeline.running.stage import run_stage
from stages import finetune
from tests import steady_trials, toy_trials
from tests.memory_limit import memory_limit

finetune.RUNNER = steady_trials.RUNNER
run_stage("finetune", finetune.main, per_task=False)
"""
GRID = {"grid.learning_rate": [0.1, 0.2, 0.3], "seeds": [1, 2], "training.epochs": 20, "runtime": {"retries": 0}}
"""Four trials, and none of them may fail once."""


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A cluster whose head runs no work."""
    with ray_cluster(cpus=0) as cluster:
        yield cluster


@contextmanager
def two_nodes(cluster: Cluster) -> Iterator[tuple[Node, Node]]:
    """Two further nodes of a core each."""
    with ExitStack() as stack:
        nodes = []
        for _ in range(2):
            nodes.append(cluster.add_node())
            stack.callback(nodes[-1].kill)
        yield nodes[0], nodes[1]


@contextmanager
def started(cluster: Cluster, workspace: Workspace, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """`python ...` in the folder, joined to the cluster; it ends with the block."""
    if not (workspace.folder / "tests").exists():
        (workspace.folder / "tests").symlink_to(ROOT / "tests")
    address = {"HOME": cluster.environment["HOME"], "RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
    process = workspace.start(*command, **address)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_group(process)


def wait_for(true: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 200
    while not true():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]  # noqa: PT018
        time.sleep(0.1)


def ended(process: "subprocess.Popen[str]") -> Done:
    said = process.communicate(timeout=300)[0]
    assert not re.search(r"Traceback|\(raylet\)|\*\*\* ", said), said
    return Done(process.returncode, said, said)


def begun() -> int:
    """Trials that have trained an epoch."""
    return len(list(HERE.trials.glob(f"*/{steady_trials.TRAINED}")))


def epochs() -> int:
    """Epochs that were begun."""
    return sum(len(path.read_text()) for path in HERE.trials.glob(f"*/{steady_trials.TRAINED}"))


def trials_of(node: Node) -> list[psutil.Process]:
    """The workers of a node that run a trial."""
    workers = psutil.Process(node.raylet).children()
    return [worker for worker in workers if "ray::ImplicitFunc" in " ".join(worker.cmdline())]


def check_weights() -> None:
    """Every trial has what an undisturbed one leaves."""
    for folder in HERE.trials.iterdir():
        settings = json.loads((folder / "settings.json").read_text())
        epochs, weights = settings["training"]["epochs"], folder / "model.safetensors"
        assert read_result(folder) is not None
        if weights.exists():  # of those that were chosen
            assert weights.read_bytes() == steady_trials.weights_after(settings, epochs)


def trained_twice() -> int:
    """Epochs that were begun beyond those that were needed."""
    settings = [json.loads(path.read_text()) for path in HERE.trials.glob("*/settings.json")]
    return epochs() - sum(each["training"]["epochs"] for each in settings)


def check_runs() -> None:
    """What MLflow has of every trial is what lies in its folder: each epoch once, and the run's end."""
    with closing(sqlite3.connect("mlflow.db")) as database:
        rows = database.execute(
            "SELECT t.value, r.status, m.step FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'trial' "
            "JOIN metrics m ON m.run_uuid = r.run_uuid AND m.key = 'selection'"
        ).fetchall()
    assert {status for _, status, _ in rows} == {"FINISHED"}
    for folder in HERE.trials.iterdir():
        result = read_result(folder)
        assert result is not None
        assert sorted(step for key, _, step in rows if key == folder.name) == [*range(1, result.epochs_run + 1)]


def vanish(node: Node, other: Node) -> None:
    node.kill()


def lose_raylet(node: Node, other: Node) -> None:
    os.kill(node.raylet, signal.SIGKILL)


@pytest.mark.parametrize("lose", [pytest.param(vanish, marks=pytest.mark.cluster), lose_raylet])
def test_a_lost_node_is_no_failed_trial(
    lose: Callable[[Node, Node], None], workspace: Workspace, head: Cluster
) -> None:
    workspace.write_params(GRID)
    prepared()
    with two_nodes(head) as (a, b), started(head, workspace, "-c", STEADY) as stage:
        wait_for(lambda: begun() == 2, stage)
        lose(a, b)
        done = ended(stage)
    assert counted(done) == (4, 0, 4)
    check_weights()
    assert trained_twice() <= 1
    check_runs()


@pytest.mark.cluster
def test_a_dead_worker_counts_as_a_failure(workspace: Workspace, head: Cluster) -> None:
    """What separates it from a lost machine: without retries its trial fails."""
    workspace.write_params({**GRID, "on_missing": "report"})
    prepared()
    with two_nodes(head) as (a, _), started(head, workspace, "-c", STEADY) as stage:
        wait_for(lambda: begun() == 2, stage)
        trials_of(a)[0].kill()
        done = ended(stage)
    assert counted(done) == (4, 0, 4)
    assert "its worker was killed, most likely for want of memory; run fewer side by side" in done.out
    assert done.out.splitlines()[-1].startswith("1 of 4 trials failed")


@pytest.mark.cluster
def test_a_driver_whose_cluster_ends_says_so(workspace: Workspace) -> None:
    """The head's raylet, whose end takes the head with it."""
    workspace.write_params(GRID)
    prepared()
    with ray_cluster(cpus=0) as own, two_nodes(own):
        with started(own, workspace, "-c", STEADY) as stage:
            wait_for(lambda: begun() == 2, stage)
            own.kill_raylet()
            done = ended(stage)
        assert done.code == 1
        line = done.out.splitlines()[-1]
        assert line in (  # as Ray's calls fail or block
            f"finetune: no Ray cluster at '127.0.0.1:{own.port}' ([Errno 111] Connection refused); start one with `ray "
            "start --head`, set RAY_AUTH_MODE=token where it wants a token, or unset RAY_ADDRESS and "
            "runtime.ray_address to use this machine alone",
            f"error: {ENDED}",
        ), done.out
        assert not re.search(r"\.(h|cc):\d+", done.out), done.out
    again = workspace.command("-c", STEADY)
    assert counted(again) == (4, 0, 4)
    check_weights()
    assert trained_twice() <= 2
    check_runs()


@pytest.mark.cluster
def test_a_trial_that_exceeds_a_containers_memory_is_a_failed_one(workspace: Workspace, head: Cluster) -> None:
    """The kernel kills its worker, as at the limit of a pod; its machine lives on."""
    rates = [0.1, toy_trials.CONFINED]
    workspace.write_params({"grid.learning_rate": rates, "on_missing": "report", "runtime": {"retries": 1}})
    prepared()
    with memory_limit(300) as group, two_nodes(head):
        (workspace.folder / "group").write_text(str(group))
        with started(head, workspace, "-c", STEADY.replace("steady_trials", "toy_trials")) as stage:
            done = ended(stage)
    assert counted(done) == (2, 0, 2)
    assert done.out.splitlines()[-1].startswith("1 of 2 trials failed")
    (line,) = (line for line in done.out.splitlines() if line.startswith("failed: "))
    assert "lr=7 seed=1: its worker was killed, most likely for want of memory; run fewer side by side" in line
    (attempts,) = (
        path.read_text() for path in HERE.trials.glob("*/attempts") if not (path.parent / "result.json").exists()
    )
    assert attempts == "xx"


KILLS = 30


@pytest.mark.cluster
def test_nothing_is_lost_in_a_soak(workspace: Workspace, head: Cluster) -> None:
    """Thirty random kills of workers, nodes and the driver, over a long grid."""
    rates = [round(0.02 * n, 2) for n in range(1, 31)]
    workspace.write_params(
        {"grid.learning_rate": rates, "seeds": [1, 2], "training.epochs": 60, "runtime": {"retries": 100}}
    )
    prepared()
    choice, in_flight, kills = random.Random(0), 0, 0
    nodes = [head.add_node(), head.add_node()]
    try:
        while True:
            with started(head, workspace, "-c", STEADY) as stage:
                done = None
                while kills < KILLS:
                    before = epochs()
                    wait_for(lambda: epochs() > before + 5, stage)  # noqa: B023
                    kills += 1
                    what = choice.choice(["worker", "raylet", "driver"])
                    victim = choice.choice(nodes)
                    if what == "driver":
                        in_flight += 2
                        stage.kill()
                        break
                    in_flight += 1
                    if what == "worker" and (running := trials_of(victim)):
                        running[0].kill()
                    else:
                        victim.kill()
                        nodes[nodes.index(victim)] = head.add_node()
                else:
                    done = ended(stage)
            if done is not None:
                break
    finally:
        for node in nodes:
            node.kill()
    assert done.code == 0, done.out
    assert len(list(HERE.trials.glob("*/result.json"))) == len(rates) + 1
    check_weights()
    assert trained_twice() <= in_flight
    check_runs()


@pytest.mark.cluster
def test_the_raylet_of_our_own_ray_is_started_again(workspace: Workspace) -> None:
    workspace.write_params(GRID)
    prepared()
    (workspace.folder / "tests").symlink_to(ROOT / "tests")
    stage = workspace.start("-c", STEADY)
    try:
        wait_for(lambda: begun() == 2, stage)
        raylet = next(child for child in psutil.Process(stage.pid).children(recursive=True) if child.name() == "raylet")
        raylet.kill()
        done = ended(stage)
    finally:
        if stage.poll() is None:
            kill_group(stage)
    assert counted(done) == (4, 0, 4)
    assert "Ray on this machine ended by itself; it is started or joined again" in done.out
    check_weights()
    assert trained_twice() <= 2
    check_runs()
