"""A real Ray cluster on free ports, for tests; others on the machine are neither joined nor stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Start a one-core head, and end it by its process."""
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
    with (folder / "start.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait(address, head, folder / "start.log")
        yield Cluster(address, gcs, environment)
    finally:
        head.send_signal(signal.SIGTERM)  # ends what this head started, and nothing else
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
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
