"""A model that only answers from now on: its weights lie as the products of this processor read them.

oneDNN reads the weight of a linear layer in blocks. PyTorch brings them into that order at every call, or leaves the
product to another library; here it is done once (docs/live-engine.md has the figures). The operators are those that
PyTorch's own compiler emits for frozen weights.
"""

import platform

import torch
from torch import nn

from pipeline.models.multi_exit import MultiExit


def ready(model: MultiExit, device: str, kind: torch.dtype = torch.float32) -> MultiExit:
    """The model on its device, for answering alone, and changed in place: weights can no longer be trained, saved or
    moved where they were packed.

    Args:
        device: "cpu" or "cuda".
        kind: type of weights and activations.
    """
    model = model.to(device, kind).eval()
    if device == "cpu" and packs(kind):
        for module in model.backbone.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(packed(module.weight.detach()), requires_grad=False)
    return model


def packs(kind: torch.dtype) -> bool:
    """Whether this processor gains from packed weights of a type: x86, with bf16 where it has instructions for it."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch._C._has_mkldnn:
        return False
    return kind == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def packed(weight: torch.Tensor) -> torch.Tensor:
    """A weight, (outputs, inputs), in oneDNN's order; `fast.linear_of` takes it as it takes the others."""
    out: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return out
