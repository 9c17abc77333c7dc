"""Whether a worker died by itself or with its machine, which Ray notices only after some 15 seconds, or Ray itself."""

import socket
from typing import Any

from pipeline.errors import ClusterError

ANSWERS_WITHIN = 2.0
"""Seconds in which a node's raylet answers that is alive."""


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


class RayEndedError(ClusterError):
    """A process of Ray of our own ended by itself; some 20 seconds later Ray ends this process too."""


def refuse_dead_ray() -> None:
    """Check that Ray of our own still runs; one that was joined is not ours to watch.

    Raises:
        RayEndedError: one of its processes is gone, such as the raylet.
    """
    from ray._private import worker

    node = worker._global_node
    if node is not None and node.is_head() and not node.remaining_processes_alive():
        raise RayEndedError("Ray on this machine ended by itself; give it more memory")


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
