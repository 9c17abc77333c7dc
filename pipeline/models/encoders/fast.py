"""An encoder's embedding and layers as about a dozen Torch calls each, for training and inference.

Transformers' modules run the same operations in the same order, with equal results to the bit, through some twenty
module calls and an `inspect.signature`. At batch 1 that Python costs 7% of a layer of ALBERT-base's size on a CPU,
since the layer's weights have just emptied the caches (docs/live-engine.md). Pruned attention heads work here only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, linear, scaled_dot_product_attention

from pipeline.models.encoders.families import Dropout

Weights = Mapping[str, Any]
"""A module's table of parameters."""


def table_of(module: nn.Module) -> Weights:
    """The module's table of parameters, which stays valid when they are moved, cast, loaded or replaced.

    Reading the table avoids the slow attribute lookup of a module: 0.04 ms for a pooler with cold caches.
    """
    return module._parameters


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
    head_size: int
    epsilon: tuple[float, float]
    dropout: Dropout
    biases: list[int] | None

    @classmethod
    def of(
        cls,
        layer: nn.Module,
        parts: Mapping[str, str],
        heads: int,
        head_size: int,
        dropout: Dropout,
        biases: list[int] | None,
    ) -> "FastLayer":
        """The parts of a Transformers layer.

        Args:
            parts: dotted path, inside the layer, of each module named by a field.
            heads: number of attention heads.
            head_size: width of each.
            biases: heads whose biases this layer reads, where each head has its own and some were pruned.
        """
        modules: dict[str, Any] = {name: layer.get_submodule(path) for name, path in parts.items()}
        epsilon = (modules["attention_norm"].eps, modules["norm"].eps)
        activation = modules.pop("activation")
        tables = {name: table_of(module) for name, module in modules.items()}
        return cls(
            **tables,
            activation=activation,
            heads=heads,
            head_size=head_size,
            epsilon=epsilon,
            dropout=dropout,
            biases=biases,
        )

    def __call__(
        self, hidden: Tensor, bias: Tensor | None, training: bool = False, gate: Tensor | None = None
    ) -> Tensor:
        """(n, tokens, h) to (n, tokens, h).

        Args:
            bias: what attention scores are raised by, as in `State`, or None.
            training: whether to apply dropout.
            gate: factor on each attention head, (n, heads); its gradient gives a head's importance.
        """
        n, tokens, _ = hidden.shape
        split = (n, tokens, self.heads, self.head_size)
        query = linear_of(hidden, self.query).view(split).transpose(1, 2)
        key = linear_of(hidden, self.key).view(split).transpose(1, 2)
        value = linear_of(hidden, self.value).view(split).transpose(1, 2)
        if self.biases is not None and bias is not None:
            bias = bias[:, self.biases]
        rate = self.dropout.attention if training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=rate)
        if gate is not None:
            mixed = mixed * gate[:, :, None, None]
        mixed = mixed.transpose(1, 2).reshape(n, tokens, self.heads * self.head_size)
        attended = linear_of(mixed, self.dense)
        attended = _sum(dropout(attended, self.dropout.attended) if training else attended, hidden, training)
        hidden = _norm(attended, self.attention_norm, self.epsilon[0])
        out = linear_of(self.activation(linear_of(hidden, self.up)), self.down)
        out = _sum(dropout(out, self.dropout.output) if training else out, hidden, training)
        return _norm(out, self.norm, self.epsilon[1])


@dataclass(frozen=True, slots=True)
class FastEmbedding:
    """Sum of word, type and position vectors, and a norm; then ALBERT's projection to the layers' width.

    Attributes:
        types: None where the family has no token types.
        first: position of the first token.
        projection: None where the embedding is as wide as the layers.
    """

    words: Weights
    positions: Weights
    types: Weights | None
    norm: Weights
    projection: Weights | None
    first: int
    epsilon: float
    dropout: float

    @classmethod
    def of(cls, embeddings: Any, first: int, projection: nn.Module | None, dropout: float) -> "FastEmbedding":
        """The parts of a Transformers encoder's embedding."""
        types = getattr(embeddings, "token_type_embeddings", None)
        return cls(
            words=table_of(embeddings.word_embeddings),
            positions=table_of(embeddings.position_embeddings),
            types=None if types is None else table_of(types),
            norm=table_of(embeddings.LayerNorm),
            projection=None if projection is None else table_of(projection),
            first=first,
            epsilon=embeddings.LayerNorm.eps,
            dropout=dropout,
        )

    def __call__(self, ids: Tensor, types: Tensor | None, training: bool = False) -> Tensor:
        """Token ids and types, (n, tokens), types None if all are 0, to (n, tokens, h)."""
        hidden = embedding(ids, self.words["weight"])
        if self.types is not None:
            kinds = self.types["weight"]
            hidden = hidden.add_(kinds[0] if types is None else embedding(types, kinds))
        hidden = hidden.add_(self.positions["weight"][self.first : self.first + ids.shape[1]])
        hidden = _norm(hidden, self.norm, self.epsilon)
        if training:
            hidden = dropout(hidden, self.dropout)
        return hidden if self.projection is None else linear_of(hidden, self.projection)


def linear_of(x: Tensor, weights: Weights) -> Tensor:
    """The linear layer with a table of weights, (..., inputs) to (..., outputs)."""
    weight = weights["weight"]
    if weight.is_mkldnn:  # pipeline/models/packed.py
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, weights["bias"], "none", [], "")
        return out
    return linear(x, weight, weights["bias"])


def _sum(product: Tensor, hidden: Tensor, training: bool) -> Tensor:
    """Product plus residual. Under autocast the product is bf16 and the residual float32, as is their sum: in place it
    would be bf16, and a frozen backbone would have other features than in training."""
    return product + hidden if training or product.dtype != hidden.dtype else product.add_(hidden)


def _norm(x: Tensor, weights: Weights, epsilon: float) -> Tensor:
    return torch.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], epsilon)
