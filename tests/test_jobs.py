"""Jobs beside each other: where they run, and that their results do not depend on it. On real Ray clusters."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ClusterError
from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import Attack, Latency, TraceIndex
from pipeline.running.ray import jobs
from pipeline.running.ray.parcel import packed
from pipeline.running.settings import Runtime
from pipeline.running.shared_folder import Storage
from pipeline.storage import file_hash
from tests.ray_cluster import Cluster, free_ports, hiding, ray_cluster
from tests.selections import save_model, select, unsettle
from tests.workspace import Done, Workspace

TASK = "demo-sentences"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without cores and two nodes of one, each with a temporary folder of its own."""
    with ray_cluster(cpus=0) as started:
        started.add_node(cwd=ROOT)
        started.add_node(cwd=ROOT)
        yield started


@pytest.mark.parametrize(
    ("start", "count", "slots", "brief", "here"),
    [(0.0, 3, 2, True, 1), (1e9, 3, 2, True, 3), (0.0, 3, 1, True, 3), (0.0, 1, 2, False, 1), (0.0, 3, 2, False, 0)],
)
def test_short_jobs_run_here_while_workers_would_gain_nothing(
    start: float, count: int, slots: int, brief: bool, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "START", start)
    ran: list[tuple[int, int]] = []
    every = packed(Storage(), range(count))
    left = jobs._run_here(every, "operator:neg", slots, lambda parcel, result: ran.append((parcel.job, result)), brief)
    assert ran == [(i, -i) for i in range(here)]
    assert list(left) == every[here:]


# Faults

TOYS = """
import os
import sys
from pathlib import Path
from pipeline.errors import exit_with_one_line
from pipeline.running.ray import pool, resources
from pipeline.running.ray.jobs import fan_out
from pipeline.running.settings import Runtime

resources.FIRST = resources.NEXT = 1.0
pool.MACHINES = int(sys.argv[3])
with exit_with_one_line("jobs"):
    fan_out(sys.argv[2].split(","), runner="tests.toy_jobs:run", root=Path("out"),
            runtime=Runtime(ray_address=os.environ.get("RAY_ADDRESS"), workers=2, device="cpu",
                            retries=int(sys.argv[1])),
            done=lambda job, result: print(job, result, flush=True))
"""


class Toys:
    """Toy jobs that run from a process of their own, on a cluster or on Ray of its own."""

    def __init__(
        self, cluster: Cluster | None, workspace: Workspace, retries: int, *jobs: str, machines: int = 10
    ) -> None:
        self.out = workspace.folder / "out"
        self.out.mkdir(exist_ok=True)
        if not (workspace.folder / "tests").exists():
            (workspace.folder / "tests").symlink_to(ROOT / "tests")
        arguments = (str(retries), ",".join(jobs), str(machines))
        self.process = workspace.start("-c", TOYS, *arguments, **(there(cluster) if cluster else {}))

    def places(self, *jobs: str) -> dict[str, tuple[str, int]]:
        """Address and process of waiting jobs, once all of them have started."""
        files = [self.out / f"{job}.place" for job in jobs]
        until(lambda: all(file.is_file() for file in files), self.process)
        split = (file.read_text().split() for file in files)
        return {job: (address, int(number)) for job, (address, number) in zip(jobs, split, strict=True)}

    def end(self) -> tuple[int, list[str]]:
        """Let the waiting jobs end; exit code, and lines of output but those about waiting, which depend on load."""
        (self.out / "go").touch()
        said, _ = self.process.communicate(timeout=120)
        assert "Traceback" not in said, said
        return self.process.returncode, [line for line in said.splitlines() if not line.startswith("waiting for ")]

    def attempts(self, job: str) -> int:
        return len((self.out / f"{job}.attempts").read_text())


def until(true: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_job_whose_machine_is_lost_runs_again_and_is_no_failure(workspace: Workspace, cluster: Cluster) -> None:
    node = cluster.add_node(cwd=ROOT)
    waiting = ("waits-1", "waits-2", "waits-3")
    toys = Toys(cluster, workspace, 0, *waiting)
    places = toys.places(*waiting)
    (lost,) = (job for job, (address, _) in places.items() if address == node.address)
    os.kill(node.raylet, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{places[lost][1]}").exists(), toys.process)  # workers end without their raylet
    code, lines = toys.end()
    assert code == 0, lines
    assert sorted(lines) == sorted([*(f"{job} {job.upper()}" for job in waiting), LOST])
    assert {job: toys.attempts(job) for job in waiting} == {job: 1 + (job == lost) for job in waiting}


LOST = "a machine is lost; its job runs again elsewhere"


@pytest.mark.slow
def test_a_job_whose_worker_dies_runs_again_as_often_as_it_may(workspace: Workspace, cluster: Cluster) -> None:
    toys = Toys(cluster, workspace, 1, "waits-1", "waits-2")
    os.kill(toys.places("waits-1", "waits-2")["waits-1"][1], signal.SIGKILL)
    code, lines = toys.end()
    assert code == 0, lines
    assert toys.attempts("waits-1") == 2
    assert sorted(lines)[0] == "a worker was killed, most likely for want of memory; its job runs again"
    toys = Toys(cluster, workspace, 1, "dies", "b")
    code, lines = toys.end()
    assert (code, toys.attempts("dies")) == (1, 2)
    assert lines[-1].startswith("jobs: a worker was killed, most likely for want of memory, 2 times with one job; give")


@pytest.mark.cluster
def test_a_job_that_brings_its_machines_down_ends(workspace: Workspace) -> None:
    """As where a container that exceeds its memory is ended as a whole."""
    with ray_cluster(cpus=0) as own:
        for _ in range(3):
            own.add_node(cwd=ROOT)
        toys = Toys(own, workspace, 0, "fells", machines=2)
        code, lines = toys.end()
    assert (code, toys.attempts("fells")) == (1, 2)
    assert lines == [LOST, "jobs: 2 machines were lost under one job; give it more memory, then go on"]


@pytest.mark.cluster
def test_ray_of_our_own_is_started_again_when_its_raylet_dies(workspace: Workspace) -> None:
    waiting = ("waits-1", "waits-2")
    toys = Toys(None, workspace, 1, *waiting)
    worker = toys.places(*waiting)["waits-1"][1]
    parent = subprocess.run(["ps", "-o", "ppid=", "-p", str(worker)], capture_output=True, text=True, check=True)
    for job in waiting:
        (toys.out / f"{job}.place").unlink()
    os.kill(int(parent.stdout), signal.SIGKILL)
    toys.places(*waiting)
    code, lines = toys.end()
    assert code == 0, lines
    assert lines[0] == "the raylet of this machine died; Ray is started or joined again"
    assert sorted(lines[1:]) == [f"{job} {job.upper()}" for job in waiting]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "reason"),
    [
        (lambda folder: folder / "out", "it does not see {folder}/out"),
        pytest.param(lambda folder: folder, "it lacks the project's code: ", marks=pytest.mark.cluster),
        pytest.param(lambda folder: ROOT / "pipeline", "it lacks the project's code: ", marks=pytest.mark.cluster),
    ],
    ids=["results", "project", "code"],
)
def test_a_node_that_lacks_something_is_left_out_and_named(
    workspace: Workspace, cluster: Cluster, hidden: Callable[[Path], Path], reason: str
) -> None:
    (workspace.folder / "out").mkdir()
    node = cluster.add_node(4, prefix=hiding(hidden(workspace.folder)), cwd=Path("/"))
    try:
        jobs = [f"waits-{i}" for i in range(4)]
        code, lines = Toys(cluster, workspace, 0, *jobs).end()
    finally:
        node.kill()
    assert code == 0, lines
    assert lines[0].startswith(f"node {node.address} is left out: {reason.format(folder=workspace.folder)}")
    assert sorted(lines[1:]) == [f"{job} {job.upper()}" for job in jobs]


def untrained_models(workspace: Workspace, seeds: int = 2, changes: Mapping[str, Any] | None = None) -> None:
    """Models of each method that nobody trained, as if they had been selected."""
    import torch

    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit
    from pipeline.tasks.demo.text import sentences as generate
    from pipeline.tasks.text.tokens import load_tokenizer

    workspace.write_params(changes)
    assert workspace.stage("prepare", TASK).code == 0
    tokenizer, texts = load_tokenizer(HERE.tokenizer(TASK, "demo-albert")), generate(60, 7)["sentence"]
    methods = load_params().methods
    keys = {method: {seed: f"{method}-{seed}" for seed in range(1, seeds + 1)} for method in methods}
    for method, by_seed in keys.items():
        for seed, key in by_seed.items():
            torch.manual_seed(seed)
            encoder = build_encoder(load_params().backbone("demo-albert"), 400)
            exits = [12] if method == "single_exit" else range(1, 13)
            model = MultiExit(encoder, exits, 2).eval()
            unsettle(model, tokenizer, texts)
            save_model(model, TASK, key)
    select(TASK, "demo-albert", keys)


def on(cluster: Cluster, workspace: Workspace, *arguments: str, **environment: str) -> Done:
    """Run `python ...` in the folder, joined to the cluster."""
    return workspace.command(*arguments, **{**there(cluster), **environment})


def there(cluster: Cluster) -> dict[str, str]:
    """Variables that lead to the cluster."""
    return {"HOME": cluster.environment["HOME"], "RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}


def test_a_kind_of_node_needs_a_cluster() -> None:
    with pytest.raises(
        ClusterError, match=r"^latency\.node: 'L4' is a kind of node of a Ray cluster, and none is join"
    ):
        jobs.run_alone("job", "L4", runner="tests.toy_jobs:run", root=Path(), runtime=Runtime())


@pytest.mark.cluster
def test_times_are_measured_alone_on_a_node_of_the_kind(workspace: Workspace, cluster: Cluster) -> None:
    untrained_models(workspace, seeds=1)
    for stage in ("trace", "evaluate"):
        assert workspace.stage(stage, TASK).code == 0
    node = cluster.add_node(2, '--resources={"quiet": 1}', cwd=ROOT)
    try:
        workspace.write_params({"latency.node": "loud", "latency.repeats": 1})
        line = on(cluster, workspace, "-m", "stages.latency", TASK).error()
        assert line.startswith(
            "latency: latency.node: no node of the Ray cluster is of the kind 'loud' (there are: quiet"
        )
        # Someone else has a core of the node, so that it is waited for.
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD], cwd=workspace.folder, env=workspace.environment | there(cluster),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == f"{node.address}\n"
        workspace.write_params({"latency.node": "quiet", "latency.repeats": 1})
        done = on(cluster, workspace, "-m", "stages.latency", TASK)
        assert done.code == 0, done.err
        assert "waiting for 2 CPUs on the Ray cluster" in done.out
        holder.communicate(timeout=60)
    finally:
        node.kill()
    measured = Latency.read(HERE.latency(TASK), "").measured
    assert measured is not None
    assert (measured.node, measured.device) == ("quiet", "cpu")
    assert "CPU" in measured.machine


HOLD = """
import time
import ray

ray.init(log_to_driver=False, logging_level="ERROR")
hold = ray.remote(num_cpus=1, resources={"quiet": 0.1})(lambda: ray.util.get_node_ip_address())
print(ray.get(hold.remote()), flush=True)
ray.get(ray.remote(num_cpus=1, resources={"quiet": 0.1})(lambda: time.sleep(45)).remote())
"""


@pytest.mark.cluster
def test_a_node_is_lost_while_it_records(workspace: Workspace, cluster: Cluster) -> None:
    untrained_models(workspace, seeds=3)
    assert workspace.stage("trace", TASK).code == 0
    expected = traces()
    for folder in (HERE.recorded, HERE.traces(TASK)):
        shutil.rmtree(folder)
    node = cluster.add_node(cwd=ROOT)
    process = workspace.start("-m", "stages.trace", TASK, **there(cluster))
    until(lambda: node.runs("ray::_answers"), process)
    node.kill()
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert LOST in said.splitlines()
    assert "Traceback" not in said
    assert traces() == expected


ATTACK = {
    "tasks": {TASK: {"rows": {"train": 40, "selection": 12, "report": 60}}},
    "methods": ["joint", "single_exit"],
    "evaluate.criteria": {"patience": {}},
    "attack.criteria": ["patience"],
    "attack.tasks": {TASK: {"examples": 60}},
    "attack.max_queries": 60,
}
"""Three shards, of two defences each."""


@pytest.mark.cluster
def test_a_node_is_lost_while_it_attacks(workspace: Workspace, cluster: Cluster) -> None:
    untrained_models(workspace, seeds=1, changes=ATTACK)
    for stage in ("trace", "evaluate", "attack"):
        done = workspace.command("-m", f"stages.{stage}", TASK)
        assert done.code == 0, done.err
    expected = attack_files()
    assert any(row.attack_success_rate.value for row in Attack.read(HERE.attack(TASK), "").attacked[0].rows)
    for folder in (HERE.attacked, HERE.attack(TASK).parent):
        shutil.rmtree(folder)
    node = cluster.add_node(cwd=ROOT)
    process = workspace.start("-m", "stages.attack", TASK, **there(cluster))
    until(lambda: node.runs("ray::_answers") and any(HERE.attacked.rglob("*.json")), process)
    node.kill()
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "3 shards to attack, 0 done before" in said
    assert LOST in said.splitlines()
    assert "Traceback" not in said
    assert attack_files() == expected


def attack_files() -> dict[str, str]:
    """Hashes of the shards' records and of the stage's outputs."""
    files = [path for folder in (HERE.attacked, HERE.attack(TASK).parent) for path in folder.rglob("*.*")]
    return {path.as_posix(): file_hash(path) for path in files if path.is_file()}


def traces() -> dict[str, str]:
    return {entry.file: entry.sha256 for entry in TraceIndex.read(HERE.trace_index(TASK), "").traces}


@pytest.mark.slow
def test_traces_are_equal_wherever_they_are_recorded(workspace: Workspace, cluster: Cluster) -> None:
    untrained_models(workspace)
    alone = workspace.stage("trace", TASK)
    assert alone.out.splitlines()[-1] == "4 traces recorded, 0 reused"
    expected = traces()
    assert len(expected) == 4
    for folder in (HERE.recorded, HERE.traces(TASK)):
        shutil.rmtree(folder)
    done = on(cluster, workspace, "-m", "stages.trace", TASK)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "4 traces recorded, 0 reused"
    assert done.out.count("2 traces recorded on cpu") == 2
    assert traces() == expected
    # A trace that is cut is recorded again, and no other.
    first = sorted(HERE.recorded.iterdir())[0]
    first.write_bytes(first.read_bytes()[:-1])
    assert workspace.stage("trace", TASK).out.splitlines()[-1] == "1 traces recorded, 3 reused"
    assert traces() == expected
    # What is recorded needs no cluster: nobody listens there.
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    done = on(cluster, workspace, "-m", "stages.trace", TASK, RAY_ADDRESS=nobody)
    assert (done.code, done.out.splitlines()[-1]) == (0, "0 traces recorded, 4 reused"), done.err
    assert traces() == expected
