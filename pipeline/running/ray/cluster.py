"""The Ray cluster that work runs on, named or our own: how it starts, and what its nodes share."""

import logging
import os
import re
import socket
import tempfile
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError
from pipeline.running.ray.resources import parallel, refuse_on_machine
from pipeline.running.settings import Runtime
from pipeline.running.signals import listen

ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""A variable of Ray: 0 makes a node's address 127.0.0.1, on which its servers then listen; else on all interfaces."""


def connect(runtime: Runtime) -> None:
    """Join the cluster that is named, or start one of our own on loopback; `ray.shutdown` leaves or ends it.

    Raises:
        ClusterError: the address does not answer, or this machine cannot run a cluster or has no such GPUs.
        DataError: `device` is "cuda" and this machine has no GPU.
    """
    if runtime.ray_address:
        _knock(runtime.ray_address)  # before the import, which takes longer than the answer
    else:
        refuse_on_machine(runtime)
    import ray
    from ray._private import ray_constants

    os.environ[ONE_MACHINE] = "1" if runtime.ray_address else "0"
    ray_constants.ENABLE_RAY_CLUSTER = bool(runtime.ray_address)  # read at the import
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime.ray_address:
        try:
            ray.init(address=runtime.ray_address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _unreachable(runtime.ray_address, error) from None
        listen()
        return
    # glibc gives a step's tensors back and asks for them anew in the next step: half of a trial's page faults, which
    # workers side by side wait for.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    # "local": not what a `ray start` on this machine left in Ray's folder, running or not.
    cpus = parallel(runtime, 0.0) * runtime.threads
    try:
        ray.init(address="local", include_dashboard=False, num_cpus=cpus, **quiet)
    except Exception as error:  # Ray has no type for it, and raises Exception itself where a part does not start
        raise _no_start(error) from None
    listen()


def _no_start(error: Exception) -> ClusterError:
    reason = " ".join(str(error).split())[:300]
    if "AF_UNIX path length" in reason:
        return ClusterError(
            f"Ray's sockets do not fit below TMPDIR {tempfile.gettempdir()} (a socket's path has 107 characters); set "
            "RAY_TMPDIR to a folder of at most 41 characters, such as /tmp"
        )
    return ClusterError(
        f"Ray cannot start on this machine ({reason}); check that HOME ({Path.home()}) and TMPDIR "
        f"({tempfile.gettempdir()}) can be written and have room, or name others"
    )


def _knock(address: str) -> None:
    """Refuse a host:port where nobody listens; Ray itself retries for minutes, with warnings of its own."""
    parts = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address)
    if parts is not None:
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
