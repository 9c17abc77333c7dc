"""Backbones by name: which encoder, how its output is pooled. Holds names only; modules load when one is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import unknown
from pipeline.settings import Block, PositiveInt, Share

Pooling = Literal["first", "mean"]
DEMO_POSITIONS = 128
"""Longest input of the demo encoder, in tokens."""
_COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")


class BackboneSettings(Block):
    """One entry of params.yaml's `backbones`."""

    hub: str | None = None
    """Hub name or local folder of an encoder laid out like BERT, RoBERTa, ALBERT or DistilBERT; needed for a name not
    known here."""
    pooling: Pooling | None = None
    layers: PositiveInt | None = None
    """Keep only the first so many layers."""
    dropout: Share | None = None
    """Dropout before each exit's linear layer when training."""


@dataclass(frozen=True)
class BackboneSpec:
    """A text backbone, complete.

    Attributes:
        hub: hub name or folder; None for the demo encoder, which starts from random weights.
        pooling: `first` token or `mean` over tokens, before the shared tanh pooler.
        layers: keep the first so many; None keeps all.
        full_layers: layers of the model that it was distilled from; its speed-up is against that one.
    """

    name: str
    hub: str | None
    pooling: Pooling = "first"
    layers: int | None = None
    dropout: float = 0.1
    about: str = ""
    full_layers: int | None = None


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            "demo-albert", None, dropout=0.0, about="12 shared layers of hidden 64, random weights, word tokens"
        ),
        BackboneSpec("albert-base", "albert/albert-base-v2", about="12 shared layers, the paper's main backbone"),
        BackboneSpec("albert-large", "albert/albert-large-v2", about="24 shared layers, the paper's Table 4"),
        BackboneSpec("bert-base", "google-bert/bert-base-uncased", about="12 layers, the paper's Table 2"),
        BackboneSpec("roberta-base", "FacebookAI/roberta-base", about="12 layers, byte-level tokens"),
        BackboneSpec(
            "distilbert",
            "distilbert/distilbert-base-uncased",
            about="6 layers distilled from bert-base, measured against its 12",
            full_layers=12,
        ),
        BackboneSpec(
            "minilm",
            "sentence-transformers/all-MiniLM-L6-v2",
            pooling="mean",
            about="6 layers of hidden 384, small and fast",
        ),
    )
}


def resolve_backbone(name: str, settings: BackboneSettings) -> BackboneSpec:
    """Complete an entry of `backbones`.

    Raises:
        ParamsError: an unknown name without `hub`.
    """
    known = BACKBONES.get(name)
    if known is None and settings.hub is None:
        raise unknown("backbone", name, BACKBONES, key="backbones")
    base = known or BackboneSpec(name, settings.hub)
    given = settings.model_dump(exclude_none=True)
    return BackboneSpec(**{**base.__dict__, **given})


def hub_path(name: str, mirror: Path | None) -> str:
    """Where to load a hub name from: the folder of that name, the mirror's, or the hub itself."""
    if mirror is not None and (mirror / "models" / name).is_dir():
        return str(mirror / "models" / name)
    return name


def first_position(config: Any) -> int:
    """Position of the first token of a Transformers configuration: RoBERTa counts from pad_token_id + 1."""
    return int(config.pad_token_id) + 1 if config.model_type in _COUNTED_FROM_PADDING else 0
