"""Encoders of the BERT and ALBERT families, taken apart into embed, layer and pool.

The Transformers modules are used as they are; only the loop over layers is ours, so that inference can stop in it.
Works on Transformers 4.57 and 5: a layer returns a tensor there and a tuple here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.backbones import BackboneSpec, Pooling, hub_path
from pipeline.cost import EncoderShape
from pipeline.errors import DataError, ParamsError


class State(NamedTuple):
    """What flows from layer to layer: hidden (n, tokens, h), keep (n, tokens) or None where nothing is padded,
    and the additive attention mask made of it, (n, 1, 1, tokens)."""

    hidden: Tensor
    keep: Tensor | None
    bias: Tensor | None

    def select(self, index: Tensor) -> "State":
        """Keep the rows in `index` and the columns that any of them needs."""
        if self.keep is None or self.bias is None:
            return State(self.hidden[index], None, None)
        return State(self.hidden[index], self.keep[index], self.bias[index])


class Encoder(nn.Module):
    """embed -> layer 1..L -> pool over a Transformers BertModel or AlbertModel.

    Attributes:
        layers: number of transformer layers, L.
        width: width of the pooled vector that the exits read.
    """

    def __init__(self, config: Any, pooling: Pooling, layers: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.pooling: Pooling = pooling
        self.layers: int = layers or config.num_hidden_layers
        if self.layers > config.num_hidden_layers:
            raise ParamsError(f"layers: {self.layers} asked of an encoder of {config.num_hidden_layers}; ask for fewer")
        self.width: int = config.hidden_size
        config.num_hidden_layers = self.layers
        config._attn_implementation = "sdpa"
        model = _model_class(config.model_type)(config)
        self.embeddings = model.embeddings
        self.encoder = model.encoder
        # One tanh pooler shared by all exits, as in the published code for both families.
        self.pooler = nn.Linear(self.width, self.width)

    def embed(self, batch: Mapping[str, Tensor]) -> State:
        """Token ids (n, tokens) to the state before layer 1. Batch: input_ids, token_type_ids, keep (if padded)."""
        hidden = self.embeddings(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
        if self.config.model_type == "albert":
            hidden = self.encoder.embedding_hidden_mapping_in(hidden)
        keep = batch.get("keep")
        bias = None
        if keep is not None:
            bias = torch.zeros(keep.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill_(~keep, torch.finfo(hidden.dtype).min)[:, None, None, :]
        return State(hidden, keep, bias)

    def layer(self, index: int, state: State) -> State:
        """Run layer `index`, counted from 0."""
        if self.config.model_type == "albert":
            group = index * self.config.num_hidden_groups // self.layers
            hidden = state.hidden
            for inner in self.encoder.albert_layer_groups[group].albert_layers:
                hidden = _tensor(inner(hidden, attention_mask=state.bias))
        else:
            hidden = _tensor(self.encoder.layer[index](state.hidden, attention_mask=state.bias))
        return State(hidden, state.keep, state.bias)

    def pool(self, index: int, state: State) -> Tensor:
        """Tanh of the shared pooler over the first token or the mean of the kept ones, (n, width)."""
        if self.pooling == "first":
            pooled = state.hidden[:, 0]
        elif state.keep is None:
            pooled = state.hidden.mean(dim=1)
        else:
            weight = state.keep.to(state.hidden.dtype)[:, :, None]
            pooled = (state.hidden * weight).sum(dim=1) / weight.sum(dim=1)
        return torch.tanh(self.pooler(pooled))

    def widths(self) -> list[int]:
        """Width of the pooled vector after each layer."""
        return [self.width] * self.layers

    def shape(self, classes: int) -> EncoderShape:
        """What the FLOP count needs."""
        config = self.config
        return EncoderShape(
            layers=self.layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            embedding=getattr(config, "embedding_size", config.hidden_size),
            head_width=self.width,
            classes=classes,
        )

    def description(self) -> dict[str, Any]:
        """All that is needed to build the same module again without the hub; JSON."""
        return {"pooling": self.pooling, "layers": self.layers, "config": self.config.to_diff_dict()}


def build_encoder(spec: BackboneSpec, vocabulary: int | None = None, mirror: Path | None = None) -> Encoder:
    """A pretrained encoder from the hub, its mirror or a folder; the demo encoder from random weights.

    Raises:
        DataError: the model is not to be had: no network and no mirror, or no such name.
    """
    if spec.hub is None:
        return Encoder(_demo_config(vocabulary), spec.pooling, spec.layers)
    from transformers import AutoConfig, AutoModel

    where = hub_path(spec.hub, mirror)
    try:
        config = AutoConfig.from_pretrained(where)
        if config.model_type not in _FAMILIES:
            raise ParamsError(
                f"backbones.{spec.name}: {spec.hub!r} is a {config.model_type!r}; "
                f"known families: {', '.join(_FAMILIES)}"
            )
        pretrained = AutoModel.from_pretrained(where, config=config, dtype=torch.float32)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"backbones.{spec.name}: cannot load {spec.hub!r} ({reason}); check the name and the network, "
            "or name a mirror on disk with HUB_MIRROR"
        ) from None
    encoder = Encoder(config, spec.pooling, spec.layers)
    weights = pretrained.state_dict()
    own = encoder.state_dict()
    pooler = "pooler" if config.model_type == "albert" else "pooler.dense"
    renamed = {name.replace(pooler + ".", "pooler."): value for name, value in weights.items()}
    missing = [name for name in own if name not in renamed and not name.startswith("pooler.")]
    if missing:
        raise DataError(
            f"backbones.{spec.name}: {spec.hub!r} has no weights for {missing[0]!r}; take another checkpoint"
        )
    encoder.load_state_dict({name: renamed.get(name, own[name]) for name in own})
    return encoder


def encoder_from_description(description: Mapping[str, Any]) -> Encoder:
    """The module that `Encoder.description` describes, with random weights."""
    config = dict(description["config"])
    return Encoder(_config_class(config["model_type"])(**config), description["pooling"], description["layers"])


_FAMILIES = ("bert", "albert")


def _model_class(model_type: str) -> Any:
    if model_type == "albert":
        from transformers.models.albert.modeling_albert import AlbertModel

        return AlbertModel
    from transformers.models.bert.modeling_bert import BertModel

    return BertModel


def _config_class(model_type: str) -> Any:
    from transformers import AlbertConfig, BertConfig

    return AlbertConfig if model_type == "albert" else BertConfig


def _demo_config(vocabulary: int | None) -> Any:
    from transformers import AlbertConfig

    return AlbertConfig(
        vocab_size=vocabulary or 1000,
        embedding_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=12,
        num_attention_heads=4,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _tensor(output: Any) -> Tensor:
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result
