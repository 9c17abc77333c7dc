"""Jobs that do nothing in no time, or wait to be killed; Ray workers import this."""

import os
import signal
import time
from pathlib import Path

from pipeline.errors import DataError

OUT = Path("out")


def run(job: str) -> str:
    with (OUT / f"{job}.attempts").open("a", encoding="utf-8") as file:
        file.write("x")
    if job == "poor":
        raise DataError("poor: no such job; name another")
    if job == "full":
        Path("/dev/full").write_text("x")
    if job.startswith("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if job.startswith("fells"):  # its machine: a worker's parent is the raylet
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if job.startswith("waits"):
        _wait(job)
    (OUT / job).touch()
    return job.upper()


def _wait(job: str) -> None:
    """Say where the job runs, and wait until it may end."""
    import ray

    place = OUT / f"{job}.place"
    place.with_suffix(".partial").write_text(f"{ray.util.get_node_ip_address()} {os.getpid()}")
    place.with_suffix(".partial").rename(place)
    while not (OUT / "go").exists():
        time.sleep(0.1)
