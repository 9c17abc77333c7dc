"""What work needs of Ray: refused where it can never come, and named while it is waited for."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipeline.errors import ClusterError
from pipeline.models.device import device_of
from pipeline.running.gpus import Gpu, share_of_gpu
from pipeline.running.settings import Runtime

TYPE = "accelerator_type:"
"""Start of the resource by which Ray names a node's kind of GPU."""
FIRST, NEXT = 10.0, 60.0
"""Seconds until the first line about waiting, and from one line to the next."""
NONE: Mapping[str, str] = MappingProxyType({})
"""No node is left out."""


@dataclass(frozen=True)
class Need:
    """What a trial or a job occupies while it runs.

    >>> str(Need(1, 0.5)), str(Need(2, 0)), str(Need(0, 0.01))
    ('1 CPU and 0.5 GPU', '2 CPUs', 'a GPU')
    """

    cpus: int
    gpus: float

    def __str__(self) -> str:
        if not self.cpus:
            return "a GPU"
        parts = [f"{self.cpus} CPU{'s' * (self.cpus != 1)}"]
        parts += [f"{self.gpus:g} GPU{'s' * (self.gpus > 1)}"] if self.gpus else []
        return " and ".join(parts)


def refuse_on_machine(runtime: Runtime) -> None:
    """Refuse the GPUs that this machine does not have, before Ray of our own starts.

    Raises:
        ClusterError: `gpus_per_trial` exceeds this machine's GPUs.
        DataError: `device` is "cuda" and there is no GPU.
    """
    share = runtime.gpus_per_trial
    if runtime.device != "cuda" and not share:
        return
    import torch  # takes seconds: only where GPUs are asked for by name

    device_of(runtime.device)
    count = torch.cuda.device_count()
    if share and share > count:
        has = f"has {count} GPU{'s' * (count != 1)}" if count else "has no GPU"
        raise ClusterError(
            f"runtime.gpus_per_trial: {share:g}, and this machine {has}; lower it, take it out, or join a cluster "
            "with RAY_ADDRESS"
        )


def refuse_if_never(need: Need, runtime: Runtime, left_out: Mapping[str, str] = NONE) -> None:
    """Refuse what no node of the cluster has, unless an autoscaler may add one that does.

    Args:
        left_out: ids of nodes that do not count, each with its address and the reason.

    Raises:
        ClusterError: it can never come.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in left_out]
    if any(node.get("CPU", 0) >= need.cpus and node.get("GPU", 0) >= need.gpus for node in nodes):
        return
    if runtime.ray_address and may_grow():
        return
    if not need.gpus:
        remedy = "lower runtime.threads"
    elif runtime.gpus_per_trial is None:
        remedy = "set runtime.device to auto or cpu"
    else:
        remedy = "lower runtime.gpus_per_trial or runtime.threads"
    every = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes[:3])
    raise ClusterError(
        f"work needs {need}, which no node of the Ray cluster has ({len(nodes)}: {every}), and no autoscaler runs that "
        f"could add one; {remedy}, or start such a node first{'; left out: ' * bool(left_out)}"
        f"{'; '.join(left_out.values())}"
    )


def may_grow() -> bool:
    """Whether an autoscaler runs, or may run: of one that reports in another way, or not yet, nothing is known."""
    try:
        from ray.autoscaler.v2.utils import is_autoscaler_v2
        from ray.experimental.internal_kv import _internal_kv_get

        if is_autoscaler_v2():
            return True
        status = json.loads(_internal_kv_get("__autoscaling_status"))
        types = status["autoscaler_report"]["node_type_mapping"].items()
    except Exception:  # Ray's own records, which another version may keep elsewhere
        return True
    # A cluster that nobody scales has a monitor too, to which each node is a type of its own.
    return not types or any(kind != f"node_{node}" for node, kind in types)


class Wait:
    """Says what is waited for while nothing runs, and gives up where it can never come."""

    def __init__(self, need: Need, runtime: Runtime, left_out: Mapping[str, str] = NONE) -> None:
        self.need, self.runtime, self.left_out = need, runtime, left_out
        self._since: float | None = None
        self._next = 0.0

    def over(self) -> None:
        """Something runs."""
        self._since = None

    def goes_on(self) -> None:
        """Nothing runs; to be called again and again.

        Raises:
            ClusterError: what is needed can never come.
        """
        import ray

        now = time.monotonic()
        if self._since is None:
            self._since, self._next = now, now + FIRST
        if now < self._next:
            return
        self._next = now + NEXT
        refuse_if_never(self.need, self.runtime, self.left_out)
        free, total = ray.available_resources(), ray.cluster_resources()
        each = (f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
        print(
            f"waiting for {self.need} on the Ray cluster, {now - self._since:.0f} s; free: {', '.join(each)}",
            flush=True,
        )

    def get(self, reference: Any) -> Any:
        """The result of a task, whose start is waited for."""
        import ray

        while not ray.wait([reference], timeout=1.0)[0]:
            self.goes_on()
        self.over()
        return ray.get(reference)


def parallel(runtime: Runtime, share: float) -> int:
    """Trials side by side on Ray of our own."""
    import ray

    if ray.is_initialized():
        resources = ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    else:
        cores, gpus = len(os.sched_getaffinity(0)), 0
    slots = fitting(cores, gpus, runtime.threads, share)
    return min(slots, runtime.workers) if runtime.workers else slots


def fitting(cores: int, gpus: int, threads: int, share: float) -> int:
    """How many trials fit at once; at least one.

    Threads never exceed cores, nor shares GPUs. A share below 1 is one of a single GPU: two GPUs hold two of 0.7.

    >>> fitting(16, 2, 1, 0.7), fitting(16, 2, 1, 0.25), fitting(16, 4, 1, 2.0), fitting(16, 0, 4, 0.0)
    (2, 8, 2, 4)
    """
    slots = max(1, cores // threads)
    if share and gpus:
        slots = min(slots, gpus * int(1 / share + 1e-6) if share < 1 else int(gpus / share))
    return slots


def gpu_share(runtime: Runtime) -> float:
    """Share of a GPU that each trial gets: as asked, or as many trials on one as its memory holds.

    Decided once: trials of a run are alike. On a cluster that was joined the choice of `device: auto` is printed.

    Raises:
        ClusterError: `device` is "cuda", and no node can ever have a GPU.
    """
    import ray

    if runtime.gpus_per_trial is not None:
        return runtime.gpus_per_trial
    if runtime.device == "cpu":
        return 0.0
    gpus, chosen = ray.cluster_resources().get("GPU", 0.0), runtime.device == "auto" and runtime.ray_address
    if not gpus and runtime.device == "auto":
        if chosen:
            print("device: cpu, since no node of the Ray cluster has a GPU now; runtime.device: cuda insists on one")
        return 0.0
    need = Need(0, 0.01)
    refuse_if_never(need, runtime)
    gib = Wait(need, runtime).get(ray.remote(num_cpus=0, num_gpus=need.gpus)(_gpu_gib).remote())
    share = share_of_gpu(gib, runtime.gpu_memory)
    if chosen:
        print(f"device: cuda, since the Ray cluster has {gpus:g} GPUs; {share:g} of one per trial", flush=True)
    return share


def gpu_kinds(runtime: Runtime, share: float) -> list[Gpu]:
    """The kinds of GPU to divide by memory; none where the user chose the share, or trials run without one.

    Kinds that an autoscaler adds later are not among them; where there is one kind now, trials run on those too, with
    the share that is right for it.
    """
    import ray

    if not share or runtime.gpus_per_trial is not None:
        return []
    counts: Counter[str] = Counter()
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("GPU"):
            names = [name for name in node["Resources"] if name.startswith(TYPE)]
            counts[names[0].removeprefix(TYPE) if names else ""] += node["Resources"]["GPU"]
    asked = {}
    for kind in counts:
        only = {f"{TYPE}{kind}": 0.001} if kind else {}
        asked[kind] = ray.remote(num_cpus=0, num_gpus=0.01, resources=only)(_gpu_gib).remote()
    wait = Wait(Need(0, 0.01), runtime)  # another driver may have all GPUs of a kind
    return [Gpu(kind, wait.get(asked[kind]), counts[kind]) for kind in sorted(counts)]


def _gpu_gib() -> float:
    """Memory of the GPU that this task was given, in GiB."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory / 2**30)
