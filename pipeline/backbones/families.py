"""Families of encoders by Transformers model type: where their parts are. Transformers loads when one is asked for."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """How the Transformers models of one model type are laid out.

    Attributes:
        module: module and class prefix, `transformers.models.<module>.modeling_<module>.<prefix>Model`.
        chain: attribute that holds the layers.
        pooler: prefix of the pretrained pooler's weights; None where there is none, and ours starts at random.
        inputs: what the embeddings take beside the ids: "types" (token types), "positions" (of our making), none.
    """

    module: str
    prefix: str
    chain: str = "encoder"
    pooler: str | None = "pooler.dense."
    inputs: tuple[str, ...] = ("types",)


_ROBERTA = ("types", "positions")
FAMILIES: dict[str, Family] = {
    "bert": Family("bert", "Bert"),
    "roberta": Family("roberta", "Roberta", inputs=_ROBERTA),
    "xlm-roberta": Family("xlm_roberta", "XLMRoberta", inputs=_ROBERTA),
    "camembert": Family("camembert", "Camembert", inputs=_ROBERTA),
    "albert": Family("albert", "Albert", pooler="pooler."),
    "distilbert": Family("distilbert", "DistilBert", chain="transformer", pooler=None, inputs=()),
}


def model_class(family: Family) -> Any:
    """The Transformers model class. Not through AutoModel, whose import takes seconds more."""
    return getattr(
        import_module(f"transformers.models.{family.module}.modeling_{family.module}"), family.prefix + "Model"
    )


def config_class(family: Family) -> Any:
    """The Transformers configuration class."""
    module = import_module(f"transformers.models.{family.module}.configuration_{family.module}")
    return getattr(module, family.prefix + "Config")


def fuse_gelu(model: nn.Module) -> None:
    """Put one kernel where Transformers writes the tanh approximation of GELU (ALBERT) as eight operations."""
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
