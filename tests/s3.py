"""An S3 server on loopback, for tests: moto's, in a process of its own."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.ray_cluster import free_ports


@contextmanager
def s3_server(*buckets: str, strict: bool = False) -> Iterator[dict[str, str]]:
    """Start a server with buckets; yields the variables of those who use it.

    Args:
        strict: whether it takes no keys but its own, of which there are none.
    """
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    if strict:
        environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(len(buckets))
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for bucket in buckets:
                _make(f"{url}/{bucket}", server)
            keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}
            yield {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **keys}
        finally:
            server.terminate()


def _make(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).close()
            return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, "the S3 server did not start"  # noqa: PT018
            time.sleep(0.1)
