"""A real Ray cluster on free ports, for tests; others on the machine are neither joined nor stopped."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """The dashboard's address, the port of the control store, and the environment for clients."""

    dashboard: str
    port: int
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


def clean_environment(home: Path) -> dict[str, str]:
    """This environment without anything that points at another cluster, MLflow server or commit.

    Ray may write an auth token under the home folder, after which clusters there want it; hence a home of its own.
    """
    dropped = ("RAY_", "MLFLOW_", "HUB_MIRROR", "EARLY_EXIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "HOME": str(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


SCALED = {
    **{"cluster_name": "test", "max_workers": 1, "upscaling_speed": 1.0, "idle_timeout_minutes": 5, "auth": {}},
    **{"head_node_type": "ray.head.default", "docker": {}, "file_mounts": {}},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{f"{name}setup_commands": [] for name in ("", "head_", "worker_")},
    **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
    "file_mounts_sync_continuously": False,
}
"""An autoscaler that starts its nodes on this machine."""


@contextmanager
def ray_cluster(worker: Mapping[str, int] | None = None) -> Iterator[Cluster]:
    """Start a one-core head, and end it by its process.

    Args:
        worker: resources of the one node that an autoscaler starts when it is asked for; None: no autoscaler.
    """
    # Not pytest's folder: paths of Unix sockets may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ee-ray-"))
    environment = clean_environment(folder)
    gcs, dashboard, listen, grpc, runtime, metrics, client = free_ports(7)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=1"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder / 'ray'}"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={listen}"),
        *(f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={runtime}"),
        *(f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 * 2**20}"),
    ]
    if worker is not None:
        types = {"ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}}
        types["worker"] = {"resources": dict(worker), "node_config": {}, "min_workers": 0, "max_workers": 1}
        provider = {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{gcs}", "disable_node_updaters": True}
        scaled = SCALED | {"available_node_types": types, "provider": provider}
        (folder / "scaled.json").write_text(json.dumps(scaled))
        command.append(f"--autoscaling-config={folder / 'scaled.json'}")
        environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with (folder / "start.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait(address, head, folder / "start.log")
        yield Cluster(address, gcs, environment)
    finally:
        head.send_signal(signal.SIGTERM)  # ends what this head started, and nothing else
        with suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with suppress(ProcessLookupError):  # what its autoscaler started is in its group too
            os.killpg(head.pid, signal.SIGKILL)
        head.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(address: str, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and head.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the cluster did not start:\n{log.read_text()}")
