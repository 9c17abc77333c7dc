"""Encoders laid out like BERT, RoBERTa, ALBERT or DistilBERT, taken apart into embed, layer and pool.

The Transformers modules are used as they are; only the loop over layers is ours, so that inference can stop in it.
Works on Transformers 4.57 and 5: a layer returns a tensor there and a tuple here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.backbones import BackboneSpec, Pooling, hub_path
from pipeline.backbones.families import FAMILIES, config_class, fuse_gelu, model_class
from pipeline.backbones.fast import FastEmbedding, FastLayer, table_of
from pipeline.cost import EncoderShape
from pipeline.errors import DataError, ParamsError


class State(NamedTuple):
    """What flows from layer to layer: hidden (n, tokens, h), keep (n, tokens) or None where nothing is padded,
    and the additive attention mask made of it, (n, 1, 1, tokens)."""

    hidden: Tensor
    keep: Tensor | None
    bias: Tensor | None

    def select(self, index: Tensor) -> "State":
        """Keep the rows in `index`, with all their columns: batches come sorted by length, so that the rows left
        are about as long as those gone (docs/live-engine.md has the measurement)."""
        if self.keep is None or self.bias is None:
            return State(self.hidden[index], None, None)
        return State(self.hidden[index], self.keep[index], self.bias[index])


class Encoder(nn.Module):
    """embed -> layer 1..L -> pool over the modules of a Transformers encoder.

    Args:
        config: the Transformers configuration; shortened to `layers` in place.
        pooling: what the shared tanh pooler reads.
        layers: keep only the first so many.

    Attributes:
        layers: number of transformer layers, L.
        width: width of the pooled vector that the exits read.

    Raises:
        ParamsError: more layers than there are, or fewer of an ALBERT whose layers are in several groups; or positions
            other than absolute ones.
    """

    encoder: Any

    def __init__(self, config: Any, pooling: Pooling, layers: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.family = FAMILIES[config.model_type]
        self.pooling: Pooling = pooling
        self.layers: int = layers or config.num_hidden_layers
        if self.layers > config.num_hidden_layers:
            raise ParamsError(f"layers: {self.layers} asked of an encoder of {config.num_hidden_layers}; ask for fewer")
        self.groups: int = getattr(config, "num_hidden_groups", 1)
        if self.groups > 1 and self.layers < config.num_hidden_layers:
            raise ParamsError(f"layers: an ALBERT of {self.groups} groups cannot be cut; leave `layers` out")
        positions = getattr(config, "position_embedding_type", "absolute")
        if positions != "absolute":
            raise ParamsError(f"backbones: an encoder of {positions!r} positions; take one with absolute positions")
        self.width: int = config.hidden_size
        config.num_hidden_layers = self.layers
        config._attn_implementation = "sdpa"
        model = model_class(self.family)(config)
        self.embeddings = model.embeddings
        self.add_module(self.family.chain, getattr(model, self.family.chain))  # under its name in checkpoints
        # One tanh pooler shared by all exits, as in the published code.
        self.pooler = nn.Linear(self.width, self.width)
        self.pooler_table = table_of(self.pooler)
        fuse_gelu(self)
        # RoBERTa counts from pad_token_id + 1 and finds the padding by its id; ours is marked in `keep`, behind the
        # row, where its position makes no difference.
        self.first_position: int = config.pad_token_id + 1 if "positions" in self.family.inputs else 0
        projection = self.encoder.embedding_hidden_mapping_in if config.model_type == "albert" else None
        self.fast_embedding = FastEmbedding.of(self.embeddings, self.first_position, projection)
        blocks = [self._blocks(index) for index in range(self.layers)]
        parts, heads = self.family.parts, config.num_attention_heads
        self.fast_layers = [[FastLayer.of(block, parts, heads) for block in inner] for inner in blocks]

    def embed(self, batch: Mapping[str, Tensor]) -> State:
        """Token ids (n, tokens) to the state before layer 1. Batch: input_ids, token_type_ids, keep (if padded)."""
        ids, types = batch["input_ids"], self._types(batch)
        hidden = self._embed_in_training(ids, types) if self.training else self.fast_embedding(ids, types)
        keep = batch.get("keep")
        bias = None
        if keep is not None:
            bias = torch.zeros(keep.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill_(~keep, torch.finfo(hidden.dtype).min)[:, None, None, :]
        return State(hidden, keep, bias)

    def _types(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        # With one type only (RoBERTa) a tokenizer's segment 1 is no row of the table: the model's zeros then.
        known = "types" in self.family.inputs and self.config.type_vocab_size > 1
        return batch["token_type_ids"] if known else None

    def _embed_in_training(self, ids: Tensor, types: Tensor | None) -> Tensor:
        more: dict[str, Any] = {}
        if types is not None:
            more["token_type_ids"] = types
        if "positions" in self.family.inputs:
            first = self.first_position
            more["position_ids"] = torch.arange(first, first + ids.shape[1], device=ids.device).expand(ids.shape)
        hidden: Tensor = self.embeddings(input_ids=ids, **more)
        if self.config.model_type == "albert":
            hidden = self.encoder.embedding_hidden_mapping_in(hidden)
        return hidden

    def layer(self, index: int, state: State) -> State:
        """Run layer `index`, counted from 0."""
        hidden = state.hidden
        if self.training:  # Transformers' own modules, with their dropout
            for block in self._blocks(index):
                hidden = _tensor(block(hidden, state.bias))
        else:
            for fast in self.fast_layers[index]:
                hidden = fast(hidden, state.bias)
        return State(hidden, state.keep, state.bias)

    def _blocks(self, index: int) -> Sequence[nn.Module]:
        """Modules of layer `index`: one, or ALBERT's inner ones."""
        chain = getattr(self, self.family.chain)
        if self.config.model_type == "albert":
            blocks: Sequence[nn.Module] = chain.albert_layer_groups[index * self.groups // self.layers].albert_layers
            return blocks
        return [chain.layer[index]]

    def pool(self, index: int, state: State) -> Tensor:
        """Tanh of the shared pooler over the first token or the mean of the kept ones, (n, width)."""
        if self.pooling == "first":
            pooled = state.hidden[:, 0]
        elif state.keep is None:
            pooled = state.hidden.mean(dim=1)
        else:
            weight = state.keep.to(state.hidden.dtype)[:, :, None]
            pooled = (state.hidden * weight).sum(dim=1) / weight.sum(dim=1)
        weight, bias = self.pooler_table["weight"], self.pooler_table["bias"]
        return torch.tanh(linear(pooled, weight, bias))

    def widths(self) -> list[int]:
        """Width of the pooled vector after each layer."""
        return [self.width] * self.layers

    def shape(self, classes: int) -> EncoderShape:
        """What the FLOP count needs."""
        config = self.config
        inner = config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size
        return EncoderShape(
            layers=self.layers,
            hidden=config.hidden_size,
            intermediate=inner,
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
        if config.model_type not in FAMILIES:
            raise ParamsError(
                f"backbones.{spec.name}: {spec.hub!r} is a {config.model_type!r}; known families: {', '.join(FAMILIES)}"
            )
        pretrained = AutoModel.from_pretrained(where, config=config, dtype=torch.float32)
    except (OSError, ValueError) as error:  # ValueError: a config.json of no known model
        reason = str(error).splitlines()[0][:200]
        raise DataError(
            f"backbones.{spec.name}: cannot load {spec.hub!r} ({reason}); check the name and the network, "
            "or name a mirror on disk with HUB_MIRROR"
        ) from None
    encoder = Encoder(config, spec.pooling, spec.layers)
    weights = pretrained.state_dict()
    own = encoder.state_dict()
    pooler = encoder.family.pooler
    renamed = {name.replace(pooler, "pooler.") if pooler else name: value for name, value in weights.items()}
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
    family = FAMILIES[config["model_type"]]
    return Encoder(config_class(family)(**config), description["pooling"], description["layers"])


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
