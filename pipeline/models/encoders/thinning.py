"""Encoders made of some of another's layers: the first ones, every other one."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.models.encoders.encoder import Encoder


def thinned(encoder: Encoder, keep: Sequence[int]) -> Encoder:
    """An encoder of some layers of another, whose modules it shares: training one trains the other.

    Of an ALBERT, whose layers are one block run again and again, only how often it runs is left to choose.

    Args:
        keep: layers that stay, counted from 0, ascending.

    Raises:
        ParamsError: an ALBERT whose layers are in several groups.
    """
    shared = encoder.config.model_type == "albert"
    heads = encoder.heads if shared else [encoder.heads[index] for index in keep]
    with torch.device("meta"):  # no weights of its own
        found = Encoder(copy.deepcopy(encoder.config), encoder.pooling, len(keep), encoder.full_layers, heads)
    found.embeddings, found.pooler = encoder.embeddings, encoder.pooler
    if shared:
        found.add_module(encoder.family.chain, encoder.chain)
    else:
        found.chain.layer = nn.ModuleList(encoder.chain.layer[index] for index in keep)
    found.wire()
    return found


def copied(encoder: Encoder) -> Encoder:
    """The same encoder with weights of its own."""
    found = copy.deepcopy(encoder)
    found.wire()
    return found
