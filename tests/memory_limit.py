"""A limit of memory as a container's, for tests: the kernel kills what exceeds it. Needs root."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def memory_limit(mib: int) -> Iterator[Path]:
    """Make a control group; yields the file into which a process writes its id to enter it.

    Processes that are in it must have ended before the block does.
    """
    second = (CGROUPS / "cgroup.controllers").is_file()  # version 2 of control groups
    if second:
        (CGROUPS / "cgroup.subtree_control").write_text("+memory")
    group = (CGROUPS if second else CGROUPS / "memory" / _own_group()) / f"early-exit-{secrets.token_hex(4)}"
    group.mkdir()
    try:
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(mib * 2**20))
        if second:
            (group / "memory.swap.max").write_text("0")
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def _own_group() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line.split(":")[2].lstrip("/") for line in lines if ":memory:" in line)
