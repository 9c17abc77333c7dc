"""One encoder layer at inference as eleven calls into Torch.

Transformers' modules do the same operations in the same order (results are equal to the bit), wrapped in some twenty
module calls and an `inspect.signature`. At batch 1 that Python costs 7% of a layer of ALBERT-base's size on a CPU,
whose caches the layer's weights have just swept clean (docs/live-engine.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

Weights = Mapping[str, Any]
"""A module's own parameter table: stays right when parameters are moved, cast, loaded or replaced."""


@dataclass(frozen=True, slots=True)
class FastLayer:
    """Self-attention and feed-forward, each with its sum and norm behind it (post-norm, Devlin et al. 2019)."""

    query: Weights
    key: Weights
    value: Weights
    dense: Weights
    attention_norm: Weights
    up: Weights
    down: Weights
    norm: Weights
    activation: Callable[[Tensor], Tensor]
    heads: int
    epsilon: tuple[float, float]

    @classmethod
    def of(cls, layer: nn.Module, parts: Mapping[str, str], heads: int) -> "FastLayer":
        """Take a layer of Transformers apart.

        Args:
            parts: dotted path, inside the layer, of each module named by a field.
        """
        found: dict[str, Any] = {name: layer.get_submodule(path) for name, path in parts.items()}
        epsilon = (found["attention_norm"].eps, found["norm"].eps)
        activation = found.pop("activation")
        tables = {name: module._parameters for name, module in found.items()}
        return cls(**tables, activation=activation, heads=heads, epsilon=epsilon)

    def __call__(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """(n, tokens, h) and the additive attention mask, (n, 1, 1, tokens) or None, to (n, tokens, h)."""
        n, tokens, width = hidden.shape
        split = (n, tokens, self.heads, width // self.heads)
        query = _linear(hidden, self.query).view(split).transpose(1, 2)
        key = _linear(hidden, self.key).view(split).transpose(1, 2)
        value = _linear(hidden, self.value).view(split).transpose(1, 2)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).reshape(n, tokens, width)
        hidden = _norm(_linear(mixed, self.dense).add_(hidden), self.attention_norm, self.epsilon[0])
        out = _linear(self.activation(_linear(hidden, self.up)), self.down)
        return _norm(out.add_(hidden), self.norm, self.epsilon[1])


def _linear(x: Tensor, weights: Weights) -> Tensor:
    return linear(x, weights["weight"], weights["bias"])


def _norm(x: Tensor, weights: Weights, epsilon: float) -> Tensor:
    return torch.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], epsilon)
