"""Jobs beside each other: where they run, and that their results do not depend on it. On real Ray clusters."""

import shutil
from collections.abc import Iterator

import pytest

from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import TraceIndex
from pipeline.running.ray import jobs
from tests.ray_cluster import Cluster, free_ports, ray_cluster
from tests.selections import save_model, select
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
    left = jobs._run_here(range(count), lambda job: -job, slots, lambda job, result: ran.append((job, result)), brief)
    assert ran == [(i, -i) for i in range(here)]
    assert list(left) == list(range(here, count))


def untrained_models(workspace: Workspace, seeds: int = 2) -> None:
    """Models of one method that nobody trained, as if they had been selected."""
    import torch

    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit

    workspace.write_params()
    assert workspace.stage("prepare", TASK).code == 0
    for seed in range(1, seeds + 1):
        torch.manual_seed(seed)
        encoder = build_encoder(load_params().backbone("demo-albert"), 400)
        save_model(MultiExit(encoder, range(1, 13), 2), TASK, f"key{seed}")
    select(TASK, "demo-albert", {"joint": {seed: f"key{seed}" for seed in range(1, seeds + 1)}})


def on(cluster: Cluster, workspace: Workspace, *arguments: str, **environment: str) -> Done:
    """Run `python ...` in the folder, joined to the cluster."""
    there = {"HOME": cluster.environment["HOME"], "RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
    return workspace.command(*arguments, **{**there, **environment})


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
