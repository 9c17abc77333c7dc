"""The command `serve` as a process, for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.identity.imports import ROOT
from tests.ray_cluster import clean_environment, free_ports


@dataclass(frozen=True)
class Served:
    """A model that is served, at an address, by a process and its children."""

    address: str
    process: "subprocess.Popen[str]"
    log: Path

    def replicas(self) -> list[psutil.Process]:
        """The processes that answer."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if (child.cmdline() or [""])[0].startswith("ray::ServeReplica")]

    def listening(self) -> set[str]:
        """Addresses on which the process and its children listen."""
        own = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        connections = [line for one in own for line in one.net_connections("tcp") if line.status == "LISTEN"]
        return {line.laddr.ip for line in connections}


@contextmanager
def served(folder: Path, home: Path, *options: str, variables: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve a folder on a free port until the block ends; then the process ends by SIGTERM."""
    (port,) = free_ports(1)
    log = home / "serve.log"
    command = [sys.executable, "-m", "pipeline", "serve", str(folder), "--port", str(port), *options]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=clean_environment(home) | dict(variables or {}), stdout=out, stderr=out, text=True
        )
    try:
        deadline = time.monotonic() + 180
        while "until it is stopped" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Served(f"http://127.0.0.1:{port}", process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, log.read_text()
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait(10)


def kill(process: psutil.Process) -> None:
    """SIGKILL."""
    os.kill(process.pid, signal.SIGKILL)
