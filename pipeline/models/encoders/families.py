"""Families of encoders by Transformers model type, with the places of their parts. Imports Transformers on demand."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.lean import absent

if TYPE_CHECKING:
    from torch import nn

_HIDDEN, _ATTENTION = "hidden_dropout_prob", "attention_probs_dropout_prob"


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout rates: on the embedding, the attention weights, the attention output and the feed-forward output."""

    embedding: float
    attention: float
    attended: float
    output: float


@dataclass(frozen=True)
class Family:
    """The layout of the Transformers models of one type.

    Attributes:
        module: module and class prefix, `transformers.models.<module>.modeling_<module>.<prefix>Model`.
        chain: attribute that holds the layers.
        parts: path inside a layer of each part that FastLayer asks for.
        pooler: prefix of the pretrained pooler's weights; None where there is none, and the pooler starts at random.
        inputs: inputs of the embeddings beside the ids: "types" (token types), or none.
        projection: path of the module that widens the embedding to the layers' width, where one is narrower.
        relative: path of the table of attention biases by distance, (buckets, heads), shared by all layers; None: none.
        dropout: names of the rates of `Dropout` in the configuration; None: no dropout there.
    """

    module: str
    prefix: str
    parts: Mapping[str, str]
    chain: str = "encoder"
    pooler: str | None = "pooler.dense."
    inputs: tuple[str, ...] = ("types",)
    projection: str | None = None
    relative: str | None = None
    dropout: tuple[str | None, ...] = (_HIDDEN, _ATTENTION, _HIDDEN, _HIDDEN)

    def dropout_of(self, config: Any) -> Dropout:
        """The dropout rates of a configuration."""
        return Dropout(*(0.0 if name is None else float(getattr(config, name)) for name in self.dropout))


_BERT_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "dense": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "activation": "intermediate.intermediate_act_fn",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_ALBERT_PARTS = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "dense": "attention.dense",
    "attention_norm": "attention.LayerNorm",
    "up": "ffn",
    "activation": "activation",
    "down": "ffn_output",
    "norm": "full_layer_layer_norm",
}
_DISTILBERT_PARTS = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "dense": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "activation": "ffn.activation",
    "down": "ffn.lin2",
    "norm": "output_layer_norm",
}
_MPNET_PARTS = _BERT_PARTS | {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "dense": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
}
FAMILIES: dict[str, Family] = {
    "bert": Family("bert", "Bert", _BERT_PARTS),
    "roberta": Family("roberta", "Roberta", _BERT_PARTS),
    "xlm-roberta": Family("xlm_roberta", "XLMRoberta", _BERT_PARTS),
    "camembert": Family("camembert", "Camembert", _BERT_PARTS),
    "electra": Family("electra", "Electra", _BERT_PARTS, pooler=None, projection="embeddings_project"),
    "mpnet": Family("mpnet", "MPNet", _MPNET_PARTS, inputs=(), relative="encoder.relative_attention_bias"),
    "albert": Family(
        "albert",
        "Albert",
        _ALBERT_PARTS,
        pooler="pooler.",
        projection="encoder.embedding_hidden_mapping_in",
        dropout=(_HIDDEN, _ATTENTION, _HIDDEN, None),
    ),
    "distilbert": Family(
        "distilbert",
        "DistilBert",
        _DISTILBERT_PARTS,
        chain="transformer",
        pooler=None,
        inputs=(),
        dropout=("dropout", "attention_dropout", None, "dropout"),
    ),
}


class OtherName(NamedTuple):
    """A model type that Transformers does not know, of models laid out and configured like those of a family.

    Attributes:
        family: the family's model type.
        field: field that a configuration of this type has and one of the family has not; it tells the type where
            `model_type` is absent.
    """

    family: str
    field: str


OTHER_NAMES: dict[str, OtherName] = {"elasticbert": OtherName("bert", "max_output_layers")}
"""By model type, which is also the prefix of the tensors' names in checkpoints that have more than the encoder."""


def family_of(fields: Mapping[str, Any]) -> str | None:
    """The family of a config.json of one of `OTHER_NAMES`; None for all others.

    >>> family_of({"model_type": "elasticbert"}), family_of({"max_output_layers": 12})
    ('bert', 'bert')
    >>> family_of({"model_type": "bert"})
    """
    kind = fields.get("model_type")
    if not kind:
        kind = next((name for name, other in OTHER_NAMES.items() if other.field in fields), None)
    return OTHER_NAMES[kind].family if kind in OTHER_NAMES else None


def renaming(family: str) -> dict[str, str] | None:
    """What Transformers is to replace in a checkpoint's names for a family, as patterns; None: nothing."""
    return {rf"^{name}\.": "" for name, other in OTHER_NAMES.items() if other.family == family} or None


def transformers_module(name: str) -> Any:
    """Import a module of Transformers.

    Transformers imports scikit-learn (for speculative decoding) and SciPy (for losses of object detection) where they
    are installed. No encoder needs them, and they take a third of the import, so its first import sees neither.
    """
    if "transformers" in sys.modules:
        return import_module(name)
    with absent("sklearn", "scipy"):
        return import_module(name)


def model_class(family: Family) -> Any:
    """The Transformers model class, without AutoModel, whose import takes seconds more."""
    module = transformers_module(f"transformers.models.{family.module}.modeling_{family.module}")
    return getattr(module, family.prefix + "Model")


def config_class(family: Family) -> Any:
    """The Transformers configuration class."""
    module = transformers_module(f"transformers.models.{family.module}.configuration_{family.module}")
    return getattr(module, family.prefix + "Config")


def fuse_gelu(model: "nn.Module") -> None:
    """Replace Transformers' tanh approximation of GELU (ALBERT), eight operations, by one kernel."""
    from torch import nn
    from transformers.activations import NewGELUActivation  # imported after a model's class

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
