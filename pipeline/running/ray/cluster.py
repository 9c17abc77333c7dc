"""The Ray cluster that work runs on, named or our own: how it starts, and what its nodes share."""

import importlib
import logging
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ClusterError, PipelineError, one_line
from pipeline.identity.versions import COMMIT_VARIABLE, git_commit
from pipeline.running.address import FORWARDED
from pipeline.running.ray.deaths import end_with_cluster
from pipeline.running.ray.resources import NONE, parallel, refuse_on_machine
from pipeline.running.settings import Runtime
from pipeline.running.shared_folder import Storage
from pipeline.running.signals import listen
from pipeline.running.storage import open_storage

GONE = "it is gone"
PROBE_SECONDS = 120.0
"""For a node to say whether it serves; it may have to unpack the code first."""
ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""A variable of Ray: 0 makes a node's address 127.0.0.1, on which its servers then listen; else on all interfaces."""


def connect(runtime: Runtime, runner: str = "") -> None:
    """Join the cluster that is named, or start one of our own on loopback; `ray.shutdown` leaves or ends it.

    Args:
        runner: "module:function" that workers will call; its package goes to nodes that see no project.

    Raises:
        ClusterError: the address does not answer, or this machine cannot run a cluster or has no such GPUs.
        DataError: `device` is "cuda" and this machine has no GPU.
    """
    if runtime.ray_address:
        _knock(runtime.ray_address)  # before the import, which takes longer than the answer
    else:
        refuse_on_machine(runtime)
    import ray
    from ray._private import ray_constants, worker

    # Of every worker and node that dies Ray prints pages, logs of its own among them; what matters of it we say.
    worker.print_to_stdstream = lambda data, ignore_prefix: None
    os.environ[ONE_MACHINE] = "1" if runtime.ray_address else "0"
    ray_constants.ENABLE_RAY_CLUSTER = bool(runtime.ray_address)  # read at the import
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if runtime.ray_address:
        if runtime.storage is not None:
            quiet["runtime_env"] = _code(runner)
        try:
            ray.init(address=runtime.ray_address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _unreachable(runtime.ray_address, error) from None
        listen()
        end_with_cluster()
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


def resources_of(runtime: Runtime) -> tuple[int, dict[str, float]]:
    """The number of live nodes of the cluster that is named, and its CPUs and GPUs; joins it for a moment.

    Raises:
        ClusterError: as `connect`.
    """
    connect(runtime)
    import ray

    try:
        alive = sum(node["Alive"] for node in ray.nodes())
        return alive, {kind: n for kind, n in ray.cluster_resources().items() if kind in ("CPU", "GPU")}
    finally:
        ray.shutdown()


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


def _code(runner: str) -> dict[str, Any]:
    """The project's packages, and where the storage is, for nodes that have neither; keys are never sent."""
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job's own names the commit too
    packages = {"pipeline", *filter(None, [runner.partition(".")[0]])}
    folders = [importlib.import_module(name).__path__[0] for name in sorted(packages)]
    variables = {name: os.environ[name] for name in FORWARDED if os.environ.get(name)}
    return {
        "py_modules": [str(Path(folder).resolve()) for folder in folders],
        "excludes": ["__pycache__"],
        "env_vars": variables | {COMMIT_VARIABLE: git_commit()},
    }


def leave_out(storage: Storage, root: Path, known: Mapping[str, str] = NONE) -> dict[str, str]:
    """Find out, before anything trains, which nodes cannot write and read where results go, and name them.

    Args:
        root: folder of the results, below the working folder.
        known: nodes that are left out already, and not asked again.

    Returns:
        Id of each node that does not serve, to its name and the reason.

    Raises:
        ClusterError: no node serves.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    if len(alive) < 2 and not storage.travels:
        return {}
    nodes = [node for node in alive if node["NodeID"] not in known]
    mark = Path(f".storage-probe-{secrets.token_hex(8)}")  # other drivers have their own
    probe = root.absolute() / mark
    if storage.travels:
        storage.mark(mark)
    else:
        probe.write_text("probe", encoding="utf-8")
    try:
        reasons = _ask(nodes, storage.text, str(mark if storage.travels else probe))
    finally:
        probe.unlink(missing_ok=True)
        storage.remove(mark)
    names = {node["NodeID"]: f"node {node['NodeManagerAddress']}" for node in nodes}
    lost = {node: f"{name}: {reasons[node]}" for node, name in names.items() if reasons[node]}
    for node in lost:
        if reasons[node] != GONE:  # a lost machine is no news here
            print(f"{names[node]} is left out: {reasons[node]}", flush=True)
    if all(node["NodeID"] in lost or node["NodeID"] in known for node in alive):
        remedy = "" if storage.travels else "; put the project on a disk that all nodes share, or set runtime.storage"
        raise ClusterError(f"no node can be used: {next(iter({**known, **lost}.values()))}{remedy}")
    return lost


def without(left_out: Mapping[str, str]) -> dict[str, str]:
    """Ray's label selector of all nodes but those."""
    return {"ray.io/node-id": f"!in({','.join(sorted(left_out))})"} if left_out else {}


def _ask(nodes: list[dict[str, Any]], store: str | None, mark: str) -> dict[str, str]:
    """Node to what it lacks; empty for a node that serves."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_lacks)
    answers = {
        node["NodeID"]: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(store, mark)
        for node in nodes
    }
    ray.wait(list(answers.values()), num_returns=len(answers), timeout=PROBE_SECONDS)
    reasons = {}
    for node, answer in answers.items():
        try:
            reasons[node] = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            reasons[node] = f"no answer in {PROBE_SECONDS:.0f} s"
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            reasons[node] = GONE  # Ray lists a node for some seconds after its end
        except ray.exceptions.RayTaskError as error:  # the text is the traceback of the node
            reason = str(error).strip().splitlines()[-1][:300]
            reasons[node] = f"it lacks the project's code: {reason}" if lacks_code(error) else reason
        except ray.exceptions.RayError as error:
            reasons[node] = one_line(error)
    return reasons


def lacks_code(error: Any) -> bool:
    """Whether a task's error, a RayTaskError, says that its node lacks the project's code or folder."""
    cause = error.cause
    return isinstance(cause, (ImportError, FileNotFoundError)) or "failed to import on the worker" in str(cause)


def _lacks(store: str | None, mark: str) -> str:
    """What a node lacks, asked on it.

    Args:
        store: address of the storage; None: the project's folder.
        mark: what the driver left there.
    """
    if store is None:
        return "" if Path(mark).is_file() else f"it does not see {Path(mark).parent}"
    try:
        open_storage(store).check(Path(mark))
    except PipelineError as error:
        return one_line(error)
    return ""
