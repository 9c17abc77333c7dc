"""The Ray cluster that work runs on, named or our own: what it has, and what its nodes share."""

import logging
import os
import re
import socket
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError
from pipeline.running.settings import Runtime


def connect(runtime: Runtime) -> None:
    """Join the cluster that is named, or start one of our own on loopback; `ray.shutdown` leaves or ends it.

    Raises:
        ClusterError: the address does not answer.
    """
    _knock(runtime.ray_address)  # before the import, which takes longer than the answer
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime.ray_address:
        try:
            ray.init(address=runtime.ray_address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _unreachable(runtime.ray_address, error) from None
        return
    # glibc gives a step's tensors back and asks for them anew in the next step: half of a trial's page faults, which
    # workers side by side wait for.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    # "local": not what a `ray start` on this machine left in Ray's folder, running or not.
    ray.init(address="local", include_dashboard=False, num_cpus=parallel(runtime, 0.0) * runtime.threads, **quiet)


def _knock(address: str | None) -> None:
    """Refuse a host:port where nobody listens; Ray itself retries for minutes, with warnings of its own."""
    parts = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address or "")
    if address and parts is not None:
        try:
            socket.create_connection((parts[1], int(parts[2])), timeout=10).close()
        except (OSError, OverflowError) as error:  # OverflowError: a port above 65535
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ClusterError:
    reason = " ".join(str(error).split())[:160]
    return ClusterError(
        f"no Ray cluster at {address!r} ({reason}); start one with `ray start --head`, set RAY_AUTH_MODE=token where "
        "it wants a token, or unset RAY_ADDRESS and runtime.ray_address to use this machine alone"
    )


def parallel(runtime: Runtime, share: float) -> int:
    """Trials side by side on Ray of our own: threads never exceed cores, shares of GPUs never exceed GPUs."""
    import ray

    if ray.is_initialized():
        resources = ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 1)), resources.get("GPU", 0.0)
    else:
        cores, gpus = len(os.sched_getaffinity(0)), 0.0
    slots = max(1, cores // runtime.threads)
    if share and gpus:
        slots = min(slots, int(gpus / share + 1e-6))
    return min(slots, runtime.workers) if runtime.workers else slots


def gpu_share(runtime: Runtime) -> float:
    """Share of a GPU that each trial gets: as asked, or as many trials on one as its memory holds."""
    import ray

    if runtime.gpus_per_trial is not None:
        return runtime.gpus_per_trial
    if runtime.device == "cpu" or not ray.cluster_resources().get("GPU"):
        return 0.0
    gib = ray.get(ray.remote(num_cpus=0, num_gpus=0.01)(_gpu_gib).remote())
    return share_of_gpu(gib, runtime.gpu_memory)


def _gpu_gib() -> float:
    """Memory of the GPU that this task was given, in GiB; of the first one asked, where a cluster has several kinds."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory / 2**30)


def share_of_gpu(gib: float, each: float) -> float:
    """The share that lets as many trials of `each` GiB onto a GPU of `gib` as fit; at least one.

    Rounded down to the four decimals that Ray counts in, so that the shares never exceed the whole.

    >>> share_of_gpu(80.0, 12.0), share_of_gpu(24.0, 8.0), share_of_gpu(8.0, 12.0)
    (0.1666, 0.3333, 1.0)
    """
    fit = max(1, int(gib // each))
    return int(10_000 / fit) / 10_000


def check_storage(root: Path) -> None:
    """Every node must see the folder that checkpoints go to; find out before training, not after."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe = root / ".shared-storage-probe"
    probe.write_text("probe", encoding="utf-8")
    task = ray.remote(num_cpus=0)(_sees)
    try:
        for node in nodes:
            pinned = task.options(
                scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], False)
            )
            if not ray.get(pinned.remote(str(probe))):
                raise ClusterError(
                    f"node {node['NodeManagerAddress']} does not see {root}; "
                    "put the project on a disk that all nodes share"
                )
    finally:
        probe.unlink(missing_ok=True)


def _sees(path: str) -> bool:
    return Path(path).is_file()
