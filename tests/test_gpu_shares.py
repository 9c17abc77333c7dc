"""Shares of GPUs by measured memory: the arithmetic, without a GPU, and on a cluster whose nodes say that they have
some; tests/test_gpu.py measures on one.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.identity.imports import ROOT
from pipeline.layout import HERE
from pipeline.running.gpus import MARGIN, Gpu, Memory, place, share_of_gpu
from pipeline.running.ray.shares import Shares
from pipeline.running.settings import Runtime
from tests import sharing_trials
from tests.ray_cluster import ray_cluster
from tests.test_finetune import counted, prepared
from tests.workspace import Workspace

H100, T4 = Gpu("H100", 80.0, 1), Gpu("T4", 16.0, 2)


def settings(batch_size: int, backbone: str = "albert", rate: float = 1e-5, seed: int = 1) -> dict[str, Any]:
    return {
        **{"modality": "text", "kind": "classification", "outputs": 2, "data": "d", "backbone": {"hub": backbone}},
        **{"method": "joint", "batch_size": batch_size, "learning_rate": rate, "seed": seed},
    }


def test_what_a_trial_needed_is_given_to_its_kind(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "gpu-memory.json")
    assert memory.need(settings(32), 12.0) == 12.0
    memory.see(settings(32), 4.0)
    memory.see(settings(32, rate=2e-5, seed=2), 3.0)
    for known in (memory, Memory(tmp_path / "gpu-memory.json")):  # also in the next run
        assert known.need(settings(32, rate=3e-5), 12.0) == 4.0 * MARGIN
        assert known.need(settings(16), 12.0) == 4.0 * MARGIN, "no more than a larger batch"
        assert known.need(settings(128), 12.0) == 12.0, "perhaps more than a smaller one"
        assert known.need(settings(32, "bert"), 12.0) == 12.0


def test_two_drivers_of_a_project_see_what_either_saw(tmp_path: Path) -> None:
    drivers = [Memory(tmp_path / "gpu-memory.json") for _ in range(2)]
    drivers[0].see(settings(32), 4.0)
    drivers[1].see(settings(32, "bert"), 5.0)
    known = Memory(tmp_path / "gpu-memory.json")
    assert [known.need(settings(32, name), 12.0) for name in ("albert", "bert")] == [4.0 * MARGIN, 5.0 * MARGIN]


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"a": 1}', '{"a": {"x": 1.0}}', '{"a": {"1": "x"}}'])
def test_a_damaged_file_counts_as_none(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(damaged)
    assert Memory(tmp_path / "m.json").need(settings(32), 12.0) == 12.0


@pytest.mark.parametrize("need", [0.5, 3.0, 8.0, 15.9, 16.0, 40.0, 79.0])
def test_trials_fill_both_kinds_and_never_exceed_one(need: float) -> None:
    used: dict[str, float] = {}
    for _ in range(sum(int(gpu.count) * int(gpu.gib // need) for gpu in (H100, T4))):
        gpu, share = place(need, [T4, H100], used)
        assert share * gpu.gib >= need * 0.98, "the share is of this kind's memory"
        used[gpu.kind] = used.get(gpu.kind, 0.0) + share
    assert used.get("H100", 0.0) <= 1
    assert used.get("T4", 0.0) <= 2


def test_what_fits_on_none_gets_the_largest() -> None:
    assert place(100.0, [T4, H100], {}) == (H100, 1.0)


def shares(tmp_path: Path, gpus: list[Gpu], **runtime: Any) -> Shares:
    return Shares(Runtime(**runtime), 0.5, gpus, Memory(tmp_path / "m.json"), {})


def test_a_trial_asks_for_the_kind_that_its_share_is_of(tmp_path: Path) -> None:
    both = shares(tmp_path, [T4, H100], gpu_memory=40.0)
    first = both.take("a", settings(32), {"a"})
    assert first == {"CPU": 1, "GPU": share_of_gpu(80, 40), "accelerator_type:H100": 0.001}
    both.see(settings(32), 6.0)
    running = {"a"}
    kinds = []
    for key in "bcdefghij":
        running.add(key)
        kinds.append(next((name for name in both.take(key, settings(32), running) if ":" in name), ""))
    assert sorted(set(kinds)) == ["accelerator_type:H100", "accelerator_type:T4"]
    assert kinds.count("accelerator_type:T4") == 4, "two on each T4; five beside the first trial"
    again = both.take("k", settings(32), {"k"})  # all others have ended
    assert again == {"CPU": 1, "GPU": share_of_gpu(80, 6.0 * MARGIN), "accelerator_type:H100": 0.001}


def test_one_kind_is_not_named(tmp_path: Path) -> None:
    """So that a node of another kind, which an autoscaler added, is used too."""
    assert shares(tmp_path, [T4], gpu_memory=8.0).take("a", settings(32), {"a"}) == {"CPU": 1, "GPU": 0.5}


def test_the_users_own_share_is_every_trials(tmp_path: Path) -> None:
    fixed = shares(tmp_path, [])
    fixed.see(settings(32), 6.0)
    assert fixed.take("a", settings(32), {"a"}) == {"CPU": 1, "GPU": 0.5}
    assert not (tmp_path / "m.json").exists()


SHARING = """
import ray
from pipeline.running.ray import resources
from pipeline.running.stage import run_stage
from stages import finetune
from tests import sharing_trials

def gib():
    return 24.0 if "accelerator_type:L4" in ray.get_runtime_context().get_assigned_resources() else 16.0

resources._gpu_gib = gib
finetune.RUNNER = sharing_trials.RUNNER
run_stage("finetune", finetune.main, per_task=False)
"""
"""The memory of GPUs that are not there is said, not asked."""


TAKEN = """
import time
import ray
from pipeline.running.ray import resources
from pipeline.running.settings import Runtime

resources._gpu_gib, resources.FIRST = (lambda: 16.0), 1.0
ray.init(address="local", num_cpus=1, num_gpus=1, resources={"accelerator_type:T4": 1}, include_dashboard=False)
taken = ray.remote(num_cpus=0, num_gpus=1)(lambda: time.sleep(10)).remote()
while ray.available_resources().get("GPU"):
    time.sleep(0.1)
print(resources.gpu_kinds(Runtime(), 0.5))
"""


@pytest.mark.cluster
def test_a_kind_of_gpu_that_others_have_is_waited_for(workspace: Workspace) -> None:
    done = workspace.command("-c", TAKEN)
    assert done.out.startswith("waiting for a GPU on the Ray cluster, "), done.err
    assert done.out.endswith("[Gpu(kind='T4', gib=16.0, count=1.0)]\n")


@pytest.mark.cluster
def test_two_kinds_of_gpu_hold_what_fits_and_no_more(workspace: Workspace) -> None:
    rates = [round(0.1 * n, 1) for n in range(1, 11)]
    workspace.write_params(
        {"grid.learning_rate": rates, "training.epochs": 3, "runtime": {"gpu_memory": 8.0, "retries": 0}}
    )
    prepared()
    (workspace.folder / "tests").symlink_to(ROOT / "tests")
    (workspace.folder / sharing_trials.TOGETHER).write_text("5")
    with ray_cluster(cpus=0) as cluster:
        kinds = {}
        for kind in ("L4", "T4"):
            node = cluster.add_node(5, "--num-gpus=1", f'--resources={{"accelerator_type:{kind}": 1}}')
            kinds[node.address] = kind
        joined = {"HOME": cluster.environment["HOME"], "RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
        done = workspace.command("-c", SHARING, **joined)
    assert counted(done) == (10, 0, 10), done.err
    assert "device: cuda, since the Ray cluster has 2 GPUs" in done.out
    places = [json.loads((folder / sharing_trials.PLACE).read_text()) for folder in HERE.trials.iterdir()]
    assert {(kinds[address], share) for address, share, *_ in places} == {("L4", 0.3333), ("T4", 0.5)}
    for address, _, began, _ in places:
        beside = [share for other, share, start, end in places if other == address and start <= began < end]
        assert sum(beside) <= 1.0
