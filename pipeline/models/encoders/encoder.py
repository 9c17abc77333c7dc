"""Encoders laid out like BERT, RoBERTa, ALBERT, ELECTRA, DistilBERT or MPNet, taken apart into embed, layer and pool.

ElasticBERT is a BERT that was pretrained with a pooler behind each layer.

Transformers' modules hold the weights. The loop over layers is this project's, so that inference can stop in it, and so
are the calls inside a layer (pipeline/models/encoders/fast.py). Works with Transformers 4.57 and 5.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import embedding

from pipeline.errors import DataError
from pipeline.models.encoders.config import check_shape, not_to_be_had, read_config
from pipeline.models.encoders.families import (
    FAMILIES,
    config_class,
    fuse_gelu,
    model_class,
    renaming,
    transformers_module,
)
from pipeline.models.encoders.fast import FastEmbedding, FastLayer, Weights, linear_of, table_of
from pipeline.models.encoders.tensors import layer_poolers
from pipeline.models.flops import EncoderShape, encoder_flops
from pipeline.models.names import DEMO_LAYERS, DEMO_POSITIONS, BackboneSpec, Pooling, first_position, hub_path
from pipeline.models.weights import weight_files

Poolers = Literal["shared_pooler", "own_pooler", "linear"]
"""What stands between a layer's summary and its exit's linear classifier: one tanh pooler for all exits, one each, or
nothing."""


class State(NamedTuple):
    """The state between layers.

    Attributes:
        hidden: (n, tokens, h).
        keep: (n, tokens), or None without padding.
        bias: what attention scores are raised by: the mask of `keep`, (n, 1, 1, tokens); with relative positions
            (n, heads, tokens, tokens), or (1, heads, tokens, tokens) without padding; None: nothing.
    """

    hidden: Tensor
    keep: Tensor | None
    bias: Tensor | None

    def select(self, index: Tensor) -> "State":
        """Keep the rows in `index`, without cutting padding: batches are sorted by length, so the remaining rows are
        about as long as the others (docs/live-engine.md has the measurement)."""
        if self.keep is None or self.bias is None:
            return State(self.hidden[index], None, self.bias)
        return State(self.hidden[index], self.keep[index], self.bias[index])


class Encoder(nn.Module):
    """embed -> layer 1..L -> pool over the modules of a Transformers encoder.

    Args:
        config: the Transformers configuration; shortened to `layers` in place.
        pooling: the vector that the shared tanh pooler reads.
        layers: number of layers to keep, from the first.
        full_layers: layers of the model that speed-ups are relative to; None: this one.
        kept_heads: attention heads of each block that were not pruned, counted from 0, ascending; None: all.
        poolers: what an exit's classifier reads; see `Poolers`.

    Attributes:
        kept_heads: likewise.
        layers: number of transformer layers, L.
        width: width of the pooled vector that the exits read.

    Raises:
        ParamsError: more layers than the model has, fewer of an ALBERT with several groups, or positions that are not
            absolute.
    """

    encoder: Any
    buckets: Tensor
    fast_embedding: FastEmbedding
    fast_layers: list[list[FastLayer]]
    pooler_tables: list[Weights | None]
    relative_table: Weights | None

    def __init__(
        self,
        config: Any,
        pooling: Pooling,
        layers: int | None = None,
        full_layers: int | None = None,
        kept_heads: Sequence[Sequence[int]] | None = None,
        poolers: Poolers = "shared_pooler",
    ) -> None:
        super().__init__()
        self.config = config
        self.family = FAMILIES[config.model_type]
        self.pooling: Pooling = pooling
        self.layers: int = layers or config.num_hidden_layers
        self.full_layers: int = full_layers or self.layers
        check_shape(config, self.layers, "backbones", "the encoder")
        self.groups: int = getattr(config, "num_hidden_groups", 1)
        self.width: int = config.hidden_size
        self.head_size: int = self.width // config.num_attention_heads
        config.num_hidden_layers = self.layers
        model = model_class(self.family)(config)
        self.embeddings = model.embeddings
        self.add_module(self.family.chain, getattr(model, self.family.chain))  # its name in checkpoints
        if hasattr(model, "embeddings_project"):  # ELECTRA's, where its embedding is narrower
            self.embeddings_project = model.embeddings_project
        # One tanh pooler shared by all exits, as in the published code.
        self.pooler: nn.Module | None = nn.Linear(self.width, self.width)
        self.poolers: Poolers = "shared_pooler"
        fuse_gelu(self)
        # RoBERTa finds padding by its id. Here `keep` marks it, after the row, where its position has no effect.
        self.first_position = first_position(config)
        longest = config.max_position_embeddings - self.first_position
        self.register_buffer("buckets", self._buckets(longest), persistent=False)
        self.kept_heads: list[list[int]] = [list(range(config.num_attention_heads)) for _ in self.blocks()]
        self.wire()
        if kept_heads is not None:
            self.keep_heads(kept_heads)
        if poolers != "shared_pooler":
            self.part_poolers(poolers)

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of attention heads of each block."""
        return tuple(len(kept) for kept in self.kept_heads)

    @property
    def chain(self) -> Any:
        """The module that holds the layers, under its name in Transformers."""
        return getattr(self, self.family.chain)

    def blocks(self) -> list[nn.Module]:
        """Attention and feed-forward blocks: one per layer, or the blocks that ALBERT's layers share."""
        if self.config.model_type == "albert":
            return [block for group in self.chain.albert_layer_groups for block in group.albert_layers]
        return list(self.chain.layer)

    def blocks_of(self, index: int) -> list[int]:
        """Positions in `blocks` of the blocks that layer `index`, counted from 0, runs."""
        if self.config.model_type == "albert":
            inner: int = self.config.inner_group_num
            first = index * self.groups // self.layers * inner
            return list(range(first, first + inner))
        return [index]

    def wire(self) -> None:
        """Rebuild the fast layers after modules were replaced."""
        rates = self.family.dropout_of(self.config)
        projection = self._part(self.family.projection)
        relative = self._part(self.family.relative)
        self.relative_table = None if relative is None else table_of(relative)
        self.pooler_tables = [None if pooler is None else table_of(pooler) for pooler in self._poolers()]
        self.fast_embedding = FastEmbedding.of(self.embeddings, self.first_position, projection, rates.embedding)
        fast = [
            FastLayer.of(block, self.family.parts, len(kept), self.head_size, rates, self._biases_of(kept))
            for block, kept in zip(self.blocks(), self.kept_heads, strict=True)
        ]
        self.fast_layers = [[fast[i] for i in self.blocks_of(index)] for index in range(self.layers)]

    def _part(self, path: str | None) -> nn.Module | None:
        """The module at a path of the family, where this encoder has it."""
        return dict(self.named_modules()).get(path) if path else None

    def _biases_of(self, kept: list[int]) -> list[int] | None:
        """The heads whose relative biases a block reads; None: those of all heads, or there are none."""
        whole = self.relative_table is None or len(kept) == self.config.num_attention_heads
        return None if whole else kept

    def _buckets(self, longest: int) -> Tensor | None:
        """The bucket of the distance from each token to each, (longest, longest); None without relative positions."""
        if self.family.relative is None:
            return None
        positions = torch.arange(longest)
        buckets: Tensor = self.chain.relative_position_bucket(positions[None, :] - positions[:, None])
        return buckets

    def part_poolers(self, poolers: Poolers) -> None:
        """Give each exit a pooler of its own, which starts as the shared one, or none.

        Raises:
            ValueError: the poolers are no longer shared.
        """
        if self.poolers != "shared_pooler":
            raise ValueError(f"the exits have {self.poolers}, not a shared pooler")
        shared, self.pooler, self.poolers = self.pooler, None, poolers
        if poolers == "own_pooler" and shared is not None:
            self.own_poolers = nn.ModuleList(copy.deepcopy(shared) for _ in range(self.layers))
        self.wire()

    def _poolers(self) -> list[nn.Module | None]:
        """The pooler after each layer."""
        if self.poolers == "own_pooler":
            return list(self.own_poolers)
        return [self.pooler] * self.layers

    def parts_of_exits(self, exits: Sequence[int]) -> list[nn.Module]:
        """Poolers that only the exits after these layers, counted from 1, read."""
        return [self.own_poolers[layer - 1] for layer in exits] if self.poolers == "own_pooler" else []

    def keep_heads(self, kept: Sequence[Sequence[int]]) -> None:
        """Remove the attention heads that are not named; the projections become smaller.

        Args:
            kept: for each of `blocks`, those of its present heads that stay, counted from 0, ascending.
        """
        for block, stay in zip(self.blocks(), kept, strict=True):
            rows = torch.cat([torch.arange(head * self.head_size, (head + 1) * self.head_size) for head in stay])
            for name in ("query", "key", "value"):
                part: Any = block.get_submodule(self.family.parts[name])
                rows = rows.to(part.weight.device)
                part.weight, part.bias = nn.Parameter(part.weight[rows]), nn.Parameter(part.bias[rows])
                part.out_features = len(rows)
            dense: Any = block.get_submodule(self.family.parts["dense"])
            dense.weight = nn.Parameter(dense.weight[:, rows])
            dense.in_features = len(rows)
        self.kept_heads = [[now[head] for head in stay] for now, stay in zip(self.kept_heads, kept, strict=True)]
        self.wire()

    def embed(self, batch: Mapping[str, Tensor]) -> State:
        """Token ids (n, tokens) to the state before layer 1. Batch: input_ids, token_type_ids, keep (if padded)."""
        hidden = self.fast_embedding(batch["input_ids"], self._types(batch), self.training)
        keep = batch.get("keep")
        bias = None
        if keep is not None:
            bias = torch.zeros(keep.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill_(~keep, torch.finfo(hidden.dtype).min)[:, None, None, :]
        if self.relative_table is not None:
            relative = self._relative_bias(hidden.shape[1])
            bias = relative if bias is None else relative + bias
        return State(hidden, keep, bias)

    def _relative_bias(self, tokens: int) -> Tensor:
        """What attention from each token to each is raised by, (1, heads, tokens, tokens)."""
        assert self.relative_table is not None
        by_distance = embedding(self.buckets[:tokens, :tokens], self.relative_table["weight"])
        return by_distance.permute(2, 0, 1)[None].contiguous()

    def _types(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        # RoBERTa's table has one row, so a tokenizer's segment 1 is not in it; without types the model uses zeros.
        has_types = "types" in self.family.inputs and self.config.type_vocab_size > 1
        return batch["token_type_ids"] if has_types else None

    def layer(self, index: int, state: State) -> State:
        """Run layer `index`, counted from 0."""
        hidden = state.hidden
        for fast in self.fast_layers[index]:
            hidden = fast(hidden, state.bias, self.training)
        return State(hidden, state.keep, state.bias)

    def summary(self, state: State) -> Tensor:
        """The vector that the pooler reads, (n, h): the first token, or the mean of the kept tokens."""
        if self.pooling == "first":
            return state.hidden[:, 0]
        if state.keep is None:
            return state.hidden.mean(dim=1)
        weight = state.keep.to(state.hidden.dtype)[:, :, None]
        return (state.hidden * weight).sum(dim=1) / weight.sum(dim=1)

    def pool(self, index: int, state: State) -> Tensor:
        """Tanh of the pooler over the layer's summary, (n, width); the summary itself for linear heads."""
        table = self.pooler_tables[index]
        if table is None:
            return self.summary(state)
        return torch.tanh(linear_of(self.summary(state), table))

    def pool_together(self, indexes: Sequence[int], states: Sequence[State]) -> list[Tensor]:
        """`pool` after several layers. A shared pooler takes them at once, and reads its weights once; equal to `pool`
        up to rounding."""
        if self.poolers != "shared_pooler":
            return [self.pool(index, state) for index, state in zip(indexes, states, strict=True)]
        table = self.pooler_tables[0]
        assert table is not None
        together = linear_of(torch.cat([self.summary(state) for state in states]), table)
        return list(torch.split(torch.tanh(together), len(states[0].hidden)))

    def widths(self) -> list[int]:
        """Width of the pooled vector after each layer."""
        return [self.width] * self.layers

    def exit_places(self) -> tuple[int, ...]:
        """Layers after which an exit may stand, counted from 1: all."""
        return tuple(range(1, self.layers + 1))

    def flops(
        self, sizes: np.ndarray, outputs: int, exits: Sequence[int], *, against_itself: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """FLOPs of each row at each exit, (n, exits), and of the plain model, (n,), for rows of `sizes` tokens.

        Args:
            against_itself: take this model's layers for the plain model, also where it was cut from a larger one.
        """
        shape = self.shape(outputs)
        return encoder_flops(replace(shape, full_layers=0) if against_itself else shape, sizes, np.asarray(exits))

    def shape(self, classes: int) -> EncoderShape:
        """The shape for the FLOP count."""
        config = self.config
        inner = config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size
        return EncoderShape(
            layers=self.layers,
            hidden=config.hidden_size,
            intermediate=inner,
            embedding=getattr(config, "embedding_size", config.hidden_size),
            head_width=0 if self.poolers == "linear" else self.width,
            classes=classes,
            full_layers=self.full_layers,
            attention=tuple(
                self.head_size * sum(self.heads[i] for i in self.blocks_of(index)) for index in range(self.layers)
            ),
            inner=len(self.blocks_of(0)),
        )

    def description(self) -> dict[str, Any]:
        """A description from which the same module can be built without the hub; JSON."""
        poolers = {} if self.poolers == "shared_pooler" else {"poolers": self.poolers}
        return {
            **poolers,
            "pooling": self.pooling,
            "layers": self.layers,
            "full_layers": self.full_layers,
            "kept_heads": self.kept_heads,
            "config": self.config.to_diff_dict(),
        }


def build_encoder(
    spec: BackboneSpec, vocabulary: int | None = None, mirror: Path | None = None, poolers: Poolers = "shared_pooler"
) -> Encoder:
    """A pretrained encoder from the hub, its mirror or a folder; the demo encoder with random weights.

    The shared pooler starts as the pretrained one. Where each layer has its own, as ElasticBERT's do, it starts as that
    of the deepest layer that is kept and has one, and exits' own poolers each as that of their layer.

    Args:
        poolers: what an exit's classifier reads; see `Poolers`.

    Raises:
        DataError: the model cannot be loaded: no network and no mirror, no such name, or no safetensors.
        ParamsError: as `read_config`.
    """
    if spec.hub is None:
        return Encoder(_demo_config(vocabulary), spec.pooling, spec.layers, spec.full_layers, poolers=poolers)
    config = read_config(spec, mirror)
    files = weight_files(spec.hub, mirror)  # refuses pickles
    transformers = transformers_module("transformers")
    try:
        of_layers = layer_poolers(files, getattr(config, "num_base_layers", None) or 0)
        pretrained, loaded = transformers.AutoModel.from_pretrained(
            hub_path(spec.hub, mirror),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            key_mapping=renaming(config.model_type),
            output_loading_info=True,
            **({"add_pooling_layer": False} if of_layers else {}),  # else it warns of a random one
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise not_to_be_had(spec, "weights", error) from None
    encoder = Encoder(config, spec.pooling, spec.layers, spec.full_layers)
    weights = pretrained.state_dict()
    initial = encoder.state_dict()
    pooler = encoder.family.pooler
    renamed = {name.replace(pooler, "pooler.") if pooler else name: value for name, value in weights.items()}
    random = set(loaded["missing_keys"])  # a pooler may be missing: ELECTRA has none, other checkpoints left it out
    missing = [name for name in initial if (name not in renamed or name in random) and not name.startswith("pooler.")]
    if missing:
        raise DataError(
            f"backbones.{spec.name}: {spec.hub!r} has no weights for {missing[0]!r}; take another checkpoint"
        )
    encoder.load_state_dict({name: renamed.get(name, initial[name]) for name in initial})
    try:
        _take_poolers(encoder, of_layers, poolers)
    except RuntimeError as error:  # a pooler without one of its tensors, or of another size
        raise not_to_be_had(spec, "weights", error) from None
    return encoder


def _take_poolers(encoder: Encoder, of_layers: Mapping[int, Mapping[str, Tensor]], poolers: Poolers) -> None:
    """Part the poolers, and start them as those of the layers, counted from 0, where the checkpoint has such."""
    if of_layers:
        assert encoder.pooler is not None
        encoder.pooler.load_state_dict(of_layers.get(encoder.layers - 1, of_layers[max(of_layers)]))
    if poolers != "shared_pooler":
        encoder.part_poolers(poolers)
    if poolers == "own_pooler":
        for index, own in enumerate(encoder.own_poolers):
            if index in of_layers:
                own.load_state_dict(of_layers[index])


def encoder_from_description(description: Mapping[str, Any]) -> Encoder:
    """The module that `Encoder.description` describes, with random weights."""
    config = dict(description["config"])
    family = FAMILIES[config["model_type"]]
    full_layers, kept = description.get("full_layers"), description.get("kept_heads")
    if kept is None and "heads" in description:  # older checkpoints have the numbers of heads, or neither
        kept = [range(count) for count in description["heads"]]
    poolers = description.get("poolers", "shared_pooler")
    return Encoder(
        config_class(family)(**config), description["pooling"], description["layers"], full_layers, kept, poolers
    )


def _demo_config(vocabulary: int | None) -> Any:
    return config_class(FAMILIES["albert"])(
        vocab_size=vocabulary or 1000,
        embedding_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=DEMO_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=DEMO_POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
