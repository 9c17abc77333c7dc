"""Whether a worker died by itself or with its machine, which Ray notices only after some 15 seconds."""

import socket
from typing import Any

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
    node = _node_of(actor_id)
    if node is None:  # the connection broke, and no raylet said that its worker died
        return "is unavailable" in error
    return not node["Alive"] or not _answers(node["NodeManagerAddress"], node["NodeManagerPort"])


def _node_of(actor_id: str) -> Any:
    """The entry of an actor's node in `ray.nodes()`; None where Ray does not know it."""
    import ray
    from ray._private.state import actors  # the public ones need the dashboard, which a cluster may lack

    identity = actors(actor_id).get("Address", {}).get("NodeID")
    return next((node for node in ray.nodes() if node["NodeID"] == identity), None)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=ANSWERS_WITHIN).close()
    except OSError:
        return False
    return True
