"""Kinds of nodes in a mixed cluster, by the names that people give them."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ClusterError, listed, shown
from pipeline.running.ray.resources import Need

GPU = "accelerator_type:"
"""Ray gives each node with a GPU a resource of this name and the GPU's kind."""
BOOKKEEPING = ("node:", "object_store_memory", "memory", "CPU", "GPU")


def whole_node(kind: str, left_out: Mapping[str, str]) -> tuple[Need, dict[str, Any]]:
    """What a job needs to have a node of a kind to itself, and Ray's options that bind it to that kind.

    Args:
        kind: a kind of GPU as Ray names it, a custom resource, or the value of any label.
        left_out: ids of nodes that do not count.

    Raises:
        ClusterError: no such node is there.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in left_out]
    fitting = [(node, bound) for node in alive if (bound := _bound(node, kind))]
    if not fitting:
        known = sorted({name for node in alive for name in _kinds(node)})
        raise ClusterError(
            f"latency.node: no node of the Ray cluster is of the kind {shown(kind)} (there are: "
            f"{listed(known) or 'none'}); name one, or start such a node with `ray start --resources` or `--labels`"
        )
    # What fills the largest of them runs on no other, and alone.
    resources, bound = max(
        ((node["Resources"], bound) for node, bound in fitting),
        key=lambda of: (of[0].get("CPU", 0), of[0].get("GPU", 0)),
    )
    return Need(int(resources.get("CPU", 0)), resources.get("GPU", 0)), bound


def _bound(node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Ray's options that bind a job to nodes like this one; empty where it is of another kind."""
    for name in (kind, GPU + kind):
        if name in node["Resources"] and name not in BOOKKEEPING:
            return {"resources": {name: 0.001}}
    label = next((label for label, value in node["Labels"].items() if value == kind), None)
    return {"label_selector": {label: kind}} if label else {}


def _kinds(node: Mapping[str, Any]) -> list[str]:
    """The names by which a node's kind can be given."""
    resources = [name.removeprefix(GPU) for name in node["Resources"] if not name.startswith(BOOKKEEPING)]
    labels = [value for label, value in node["Labels"].items() if label != "ray.io/node-id"]
    return [*resources, *labels]
