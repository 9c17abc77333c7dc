"""Encoders made of some layers of another encoder, such as the first ones or every other one."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.models.encoders.encoder import Encoder


def thinned(encoder: Encoder, keep: Sequence[int]) -> Encoder:
    """An encoder of some layers of another, whose modules it shares: training one trains the other.

    An ALBERT runs one block again and again, so only the number of runs can be chosen.

    Args:
        keep: layers that stay, counted from 0, ascending.

    Raises:
        ParamsError: an ALBERT whose layers are in several groups.
    """
    shared = encoder.config.model_type == "albert"
    heads = encoder.kept_heads if shared else [encoder.kept_heads[index] for index in keep]
    with torch.device("meta"):  # allocates no weights
        shallow = Encoder(copy.deepcopy(encoder.config), encoder.pooling, len(keep), encoder.full_layers, heads)
    blocks = nn.ModuleList() if shared else nn.ModuleList(encoder.chain.layer[index] for index in keep)
    for name, module in encoder.named_children():
        if name != encoder.family.chain or shared:
            shallow.add_module(name, module)
    if not shared:
        for name, module in encoder.chain.named_children():
            shallow.chain.add_module(name, blocks if name == "layer" else module)
    shallow.buckets, shallow.pooler, shallow.poolers = encoder.buckets, encoder.pooler, encoder.poolers
    shallow.wire()
    return shallow


def copied(encoder: Encoder) -> Encoder:
    """A copy of an encoder, with separate weights."""
    clone = copy.deepcopy(encoder)
    clone.wire()
    return clone
