"""Names of the tensors of pretrained checkpoints: those of an encoder, and those of poolers that each layer has."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

if TYPE_CHECKING:
    from torch import Tensor

OF_ENCODER = re.compile(r"(?:\w+\.)?(?:embeddings|embeddings_project|encoder|transformer|pooler)\.")
"""Start of the name of each tensor of an encoder; the others are of heads for pretraining or a task."""
LAYER = re.compile(r"\blayer\.(\d+)\.")
"""The number of a layer in the name of a tensor; ALBERT's layers share theirs."""
POOLER = re.compile(r"(?:\w+\.)?encoder\.pooler\.(\d+)\.dense\.(weight|bias)")
"""A tensor of the pooler of one layer, as ElasticBERT has them, with the pooler's number."""


def layer_poolers(files: Iterable[Path], first: int = 0) -> "dict[int, dict[str, Tensor]]":
    """Weight and bias of the pooler of each layer, counted from 0; empty where no layer has a pooler of its own.

    Args:
        files: safetensors.
        first: the layer, counted from 0, behind which pooler 0 stands.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                at = POOLER.fullmatch(name)
                if at is not None:
                    found.setdefault(first + int(at[1]), {})[at[2]] = file.get_tensor(name)
    return found
