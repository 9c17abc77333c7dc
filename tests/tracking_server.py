"""The tracking server as users start it: on a free port, in a folder that PostgreSQL's user can reach."""

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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline.identity.imports import ROOT
from tests.ray_cluster import clean_environment

PASSWORD = "a long secret 1"


@dataclass
class TrackingServer:
    """A server that can be killed and started again.

    Attributes:
        folder: its files, and server.log of what it printed.
        environment: for its clients.
    """

    folder: Path
    options: tuple[str, ...]
    port: int
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def printed(self) -> str:
        return (self.folder / "server.log").read_text(encoding="utf-8")

    def start(self) -> None:
        command = [sys.executable, "-m", "pipeline", "tracking-server", "--folder", str(self.folder / "files")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.options],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        before = self.printed.count("until it is stopped")
        deadline = time.monotonic() + 240
        while self.printed.count("until it is stopped") == before:
            assert self.process.poll() is None and time.monotonic() < deadline, self.printed  # noqa: PT018
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to the command and to MLflow's processes."""
        everything = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for process in everything:
            process.kill()
        psutil.wait_procs(everything, timeout=20)
        self.process.wait(20)

    def kill_database(self) -> None:
        """SIGKILL to PostgreSQL's main process; its workers end by themselves."""
        pid = int((self.folder / "files/postgres/data/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    def status(self, path: str = "/api/2.0/mlflow/experiments/get?experiment_id=0", **headers: str) -> int:
        """What it answers to a request without a password."""
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.address + path, headers=headers), timeout=20
            ) as done:
                return int(done.status)
        except urllib.request.HTTPError as error:
            return error.code


@contextmanager
def tracking_server(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[TrackingServer]:
    folder = Path(tempfile.mkdtemp(prefix="ee-track-"))  # not pytest's folder, which is closed to PostgreSQL's user
    folder.chmod(0o711)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    login = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    server = TrackingServer(
        folder, options, port, clean_environment(folder) | login | address | dict(environment or {})
    )
    try:
        server.start()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def listening(*pids: int) -> set[str]:
    """Addresses on which processes and their descendants listen, as `ss -ltnp` says."""
    family = {
        pid for top in pids for pid in (top, *(child.pid for child in psutil.Process(top).children(recursive=True)))
    }
    lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    mine = [line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in family)]
    return {address.rpartition(":")[0] for address in mine}
