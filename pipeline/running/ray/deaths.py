"""Whether a worker died by itself, and of what, or with its machine, which Ray notices only after some 15 seconds, or
Ray itself.
"""

import os
import socket
import sys
import threading
import time
from typing import Any

from pipeline.errors import ClusterError

ANSWERS_WITHIN = 2.0
"""Seconds in which a node's raylet answers that is alive."""
LOOKS_EACH = 1.0
"""Seconds from one look at this machine's raylet to the next."""
PATIENCE = 15.0
"""Seconds without an answer of this machine's raylet after which this process ends, if nothing else ended it."""
ENDED = "the Ray cluster has ended; start it and run this again, what is finished is kept"


def lost_its_node(actor_id: str, error: str) -> bool:
    """Whether an actor that died without a word lost the machine that it ran on.

    Args:
        actor_id: in hexadecimal digits.
        error: what Ray said of the death.
    """
    if "its node has died" in error:
        return True
    from ray._private.state import actors  # the public ones need the dashboard, which a cluster may lack

    node = _entry(actors(actor_id).get("Address", {}).get("NodeID"))
    if node is None:  # the connection broke, and no raylet said that its worker died
        return "is unavailable" in error
    return not node_answers(node["NodeID"])


def death_of_worker(said: str) -> str:
    """How a worker ended that could not say so itself; goes on after "its worker".

    Ray sees no more of a SIGKILL than that the connection ended. The kernel sends it to a process that exceeds the
    memory of its container or machine; a crash of native code looks the same, and is seldom.

    Args:
        said: what Ray said of the death.
    """
    if "running low on memory" in said:  # Ray's memory monitor, before the kernel does it
        return "was ended, since its machine ran low on memory"
    if "connection error code 2" in said or "worker died unexpectedly" in said:
        return "was killed, most likely for want of memory"
    return f"died ({' '.join(said.split())[:300]})"


class RayEndedError(ClusterError):
    """Ray of our own, or the raylet of this machine, ended; some 20 seconds later Ray ends this process too."""


class Watch:
    """Looks whether this process still has a Ray to speak with."""

    def __init__(self) -> None:
        import ray

        self._here = _entry(ray.get_runtime_context().get_node_id())
        self._next = 0.0

    def refuse_dead_ray(self, *, now: bool = False) -> None:
        """Check that Ray of our own still runs; of one that was joined, the raylet of this machine.

        Args:
            now: look, although it was looked at within the last second.

        Raises:
            RayEndedError: it does not.
        """
        from ray._private import worker

        node = worker._global_node
        if node is None:  # a client, ray://, which is beside no raylet
            return
        if node.is_head():
            if not node.remaining_processes_alive():
                raise RayEndedError("Ray on this machine ended by itself")
        elif self._here is not None and (now or time.monotonic() >= self._next):
            self._next = time.monotonic() + LOOKS_EACH
            if not _answers(self._here["NodeManagerAddress"], self._here["NodeManagerPort"]):
                raise RayEndedError("the raylet of this machine died")


def end_with_cluster() -> None:
    """End this process with one line where the cluster that it joined has ended.

    Ray's calls may block then, so that `Watch` is not asked, until a minute later Ray ends the process with a line of
    C++.
    """
    import ray
    from ray._private import worker

    node = worker._global_node
    if node is None:
        return
    here = _entry(ray.get_runtime_context().get_node_id())

    def look() -> None:
        since = time.monotonic()
        while worker._global_node is node:  # not left meanwhile
            if _answers(here["NodeManagerAddress"], here["NodeManagerPort"]):
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                print(f"error: {ENDED}", file=sys.stderr, flush=True)
                os._exit(1)
            time.sleep(LOOKS_EACH)

    threading.Thread(target=look, daemon=True).start()


def node_answers(identity: str) -> bool:
    """Whether the raylet of a node answers."""
    node = _entry(identity)
    return bool(node and node["Alive"] and _answers(node["NodeManagerAddress"], node["NodeManagerPort"]))


def _entry(identity: str) -> Any:
    """The entry of a node in `ray.nodes()`; None where Ray does not know it."""
    import ray

    return next((node for node in ray.nodes() if node["NodeID"] == identity), None)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=ANSWERS_WITHIN).close()
    except OSError:
        return False
    return True
