"""A real MLflow server, and a line to it that can be cut."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from pipeline.identity.imports import ROOT
from tests.tracking_server import listening
from tests.workspace import Workspace


@contextmanager
def mlflow_server(workspace: Workspace) -> Iterator[int]:
    """`make ui` on the workspace's database; yields its port, on which nobody listens but on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shown = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "ui", f"UI_PORT={port}"], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in shown.stdout.splitlines() if "pipeline ui" in line]
    server = subprocess.Popen(
        ["bash", "-c", line],
        cwd=workspace.folder,
        env=workspace.environment | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < deadline  # noqa: PT018
            time.sleep(0.2)
        assert listening(server.pid) == {"127.0.0.1"}
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Line:
    """Passes connections on to a port, until it is cut.

    Attributes:
        loses_answers: whether requests still arrive, and connections are cut before the answer.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.loses_answers = False
        self._open: list[socket.socket] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.mend()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()

    def mend(self) -> None:
        """Listen."""
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        """Refuse connections, and end those that there are."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for side in self._open:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
        self._open.clear()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self._open += [near, far]
                threading.Thread(target=_pass_on, args=(self, near, far), daemon=True).start()


def _pass_on(line: Line, near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError, ValueError):
        while True:
            for side in select.select([near, far], [], [])[0]:
                data = side.recv(65536)
                if not data or (side is far and line.loses_answers):
                    near.close()
                    return
                (far if side is near else near).sendall(data)
