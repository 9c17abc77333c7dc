"""A real Ray cluster on free ports, for tests; others on the machine are neither joined nor stopped."""

import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Node:
    """A node beside the head: its address, its own temporary folder and the process that holds its raylet."""

    address: str
    folder: Path
    process: "subprocess.Popen[bytes]"

    @property
    def raylet(self) -> int:
        """The id of its raylet's process."""
        return self._child("raylet/raylet")

    def _child(self, name: str) -> int:
        for line in _processes():
            number, group, command = line.split(None, 2)
            if int(group) == self.process.pid and name in command.split()[0]:
                return int(number)
        raise AssertionError(f"no {name} at {self.address}")

    def runs(self, name: str) -> bool:
        """Whether a worker of the node has a name, which Ray gives it after what it runs."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "args=", "--ppid", str(self.raylet)], capture_output=True, text=True, check=False
        )
        return any(line.startswith(name) for line in listed.stdout.splitlines())

    def kill(self) -> None:
        """SIGKILL everything of the node, as where a machine loses its power."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@dataclass(frozen=True)
class Cluster:
    """The dashboard's address, the port of the control store, and the environment for clients."""

    dashboard: str
    port: int
    environment: dict[str, str]
    folder: Path
    nodes: list[Node]

    def kill_raylet(self) -> None:
        """SIGKILL the head's raylet."""
        (line,) = (line for line in _processes() if str(self.folder) in line and "raylet/raylet" in line.split()[2])
        os.kill(int(line.split()[0]), signal.SIGKILL)

    def add_node(self, cpus: int = 1, *arguments: str, prefix: Sequence[str] = (), cwd: Path | None = None) -> Node:
        """Start a raylet with a temporary folder of its own, and wait until the head knows it.

        Args:
            arguments: more for `ray start`, such as `--resources`.
            prefix: a command to start it under, such as `hiding`.
            cwd: its working directory.
        """
        address = f"127.0.0.{len(self.nodes) + 2}"  # all of 127/8 is loopback: an address for each
        folder = Path(tempfile.mkdtemp(prefix="ee-node-"))
        listen, grpc, runtime, metrics = free_ports(4)
        command = [
            *(*prefix, str(BIN / "ray"), "start", f"--address=127.0.0.1:{self.port}", "--block"),
            *("--disable-usage-stats", f"--num-cpus={cpus}", f"--node-ip-address={address}"),
            *(f"--temp-dir={folder / 'ray'}", f"--dashboard-agent-listen-port={listen}"),
            *(f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={runtime}"),
            *(f"--metrics-export-port={metrics}", f"--object-store-memory={100 * 2**20}"),
            *("--min-worker-port=0", "--max-worker-port=0", *arguments),
        ]
        with (folder / "start.log").open("w") as log:
            own = self.environment | {"TMPDIR": str(folder)}
            process = subprocess.Popen(
                command, env=own, stdout=log, stderr=log, start_new_session=True, cwd=cwd or folder
            )
        node = Node(address, folder, process)
        self.nodes.append(node)
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in (folder / "start.log").read_text():
            assert time.monotonic() < deadline, (folder / "start.log").read_text()
            assert process.poll() is None, (folder / "start.log").read_text()
            time.sleep(0.2)
        return node


def hiding(*folders: Path) -> list[str]:
    """A command to start others under, with an empty disk in place of each folder, as on another machine."""
    mounts = [f"mount -t tmpfs none {shlex.quote(str(folder.resolve()))}" for folder in folders]
    return ["unshare", "-m", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"]


def _processes() -> list[str]:
    """Id, group and command of every process."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,pgid=,args="], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, and that no connection is given: those begin at 32768."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            bound = stack.enter_context(socket.socket())
            with suppress(OSError):
                bound.bind(("127.0.0.1", secrets.randbelow(20_000) + 12_000))
                ports.append(bound.getsockname()[1])
    return ports


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
def ray_cluster(
    worker: Mapping[str, int] | None = None,
    cpus: int = 1,
    variables: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Start a head of one core, or another number, and end it and its nodes by their processes.

    Args:
        worker: resources of the one node that an autoscaler starts when it is asked for; None: no autoscaler.
        variables: of the head, the nodes and the clients, beside their own.
        prefix: a command to start the head under, such as `hiding`.
    """
    # Not pytest's folder: paths of Unix sockets may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ee-ray-"))
    slow = {"RAY_raylet_start_wait_time_s": "120"}  # a busy machine
    environment = clean_environment(folder) | slow | dict(variables or {})
    gcs, dashboard, listen, grpc, runtime, metrics, client = free_ports(7)
    command = [
        *(*prefix, str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder / 'ray'}"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={listen}"),
        *(f"--dashboard-agent-grpc-port={grpc}", f"--runtime-env-agent-port={runtime}"),
        *(f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 * 2**20}"),
    ]
    if worker is not None:
        types = {"ray.head.default": {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}}
        types["worker"] = {"resources": dict(worker), "node_config": {}, "min_workers": 0, "max_workers": 1}
        provider = {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{gcs}", "disable_node_updaters": True}
        scaled = SCALED | {"available_node_types": types, "provider": provider}
        (folder / "scaled.json").write_text(json.dumps(scaled))
        command.append(f"--autoscaling-config={folder / 'scaled.json'}")
        environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with (folder / "start.log").open("w") as log:
        own = environment | {"TMPDIR": str(folder)}
        head = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    address = f"http://127.0.0.1:{dashboard}"
    cluster = Cluster(address, gcs, environment, folder, [])
    try:
        _wait(address, head, folder / "start.log")
        yield cluster
    finally:
        for node in cluster.nodes:
            node.kill()
            shutil.rmtree(node.folder, ignore_errors=True)
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
