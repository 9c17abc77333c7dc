"""Backbones by name: which network, and what of it a task's rows meet. Names only; modules load when one is built."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ParamsError, unknown
from pipeline.settings import Block, PositiveInt, Share
from pipeline.tasks.task import Modality

Pooling = Literal["first", "mean"]
Placement = Literal["every_two_convs", "six"]
DEMO_POSITIONS = 128
"""Longest input of the demo encoder, in tokens."""
_COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")
_RESIDUAL = re.compile(r"resnet(\d+)")
_ONLY = {"text": ("hub", "pooling", "layers"), "image": ("width", "exits")}


class BackboneSettings(Block):
    """One entry of params.yaml's `backbones`."""

    hub: str | None = None
    """Texts: hub name or local folder of an encoder laid out like BERT, RoBERTa, ALBERT or DistilBERT; needed for a
    name not known here."""
    pooling: Pooling | None = None
    """Texts: what the exits' shared pooler reads, the first token or the mean over tokens."""
    layers: PositiveInt | None = None
    """Texts: keep only the first so many layers."""
    dropout: Share | None = None
    """Dropout before each exit's linear layer when training."""
    width: PositiveInt | None = None
    """Images: channels of the first stage of a residual network; 16 in the paper."""
    exits: Placement | None = None
    """Images: where exits stand: after every two convolutions (the paper, Appendix A), or at Shallow-Deep's six."""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone, complete.

    Attributes:
        hub: hub name or folder; None for a network that starts from random weights.
        pooling: `first` token or `mean` over tokens, before the shared tanh pooler.
        layers: keep the first so many; None keeps all.
        full_layers: layers of the model that it was distilled from; its speed-up is against that one.
        modality: of the tasks that it serves.
        depth, width, exits: of a residual network: layers with weights, channels of its first stage, where exits stand.
    """

    name: str
    hub: str | None
    pooling: Pooling = "first"
    layers: int | None = None
    dropout: float = 0.1
    about: str = ""
    full_layers: int | None = None
    modality: Modality = "text"
    depth: int = 0
    width: int = 16
    exits: Placement = "every_two_convs"

    def identity(self, multi_exit: bool) -> dict[str, Any]:
        """What a trial's result hangs on beside the pretrained weights; JSON.

        A model with one exit has it at the end wherever others have theirs: a change of placement trains none anew.
        """
        if self.modality == "text":
            return {name: getattr(self, name) for name in ("pooling", "layers", "dropout", "full_layers")}
        exits = {"exits": self.exits} if multi_exit else {}
        return {"depth": self.depth, "width": self.width, "dropout": self.dropout, **exits}


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
        *(
            BackboneSpec(
                f"resnet{depth}", None, dropout=0.0, modality="image", depth=depth,
                about=f"residual network of {depth} layers for 32x32 images; any resnet<6n + 2> serves",
            )
            for depth in (20, 56)
        ),
    )
}  # fmt: skip


def resolve_backbone(name: str, settings: BackboneSettings) -> BackboneSpec:
    """Complete an entry of `backbones`.

    Raises:
        ParamsError: an unknown name without `hub`, a residual network that is not 6n + 2 deep, or a setting of the
            other modality.
    """
    known = BACKBONES.get(name) or _residual(name)
    if known is None and settings.hub is None:
        raise unknown("backbone", name, BACKBONES, key="backbones")
    base = known or BackboneSpec(name, settings.hub)
    given = settings.model_dump(exclude_none=True)
    for setting in _ONLY["image" if base.modality == "text" else "text"]:
        if setting in given:
            raise ParamsError(
                f"backbones.{name}.{setting}: {given[setting]!r}; a backbone for {base.modality}s has no {setting}, "
                "take it out"
            )
    return replace(base, **given)


def _residual(name: str) -> BackboneSpec | None:
    """resnet20, resnet56, ...: He et al.'s networks for CIFAR."""
    match = _RESIDUAL.fullmatch(name)
    if match is None:
        return None
    depth = int(match[1])
    check_depth(depth, f"backbones.{name}")
    return replace(BACKBONES["resnet56"], name=name, depth=depth)


def check_depth(depth: int, key: str) -> None:
    """Raise ParamsError where a residual network is not 6n + 2 deep (He et al. 2016, 4.2)."""
    if depth < 8 or (depth - 2) % 6:
        raise ParamsError(f"{key}: depth {depth} is not 6n + 2; take 8, 14, 20, 32, 44, 56 or 110")


def hub_path(name: str, mirror: Path | None) -> str:
    """Where to load a hub name from: the folder of that name, the mirror's, or the hub itself."""
    if mirror is not None and (mirror / "models" / name).is_dir():
        return str(mirror / "models" / name)
    return name


def first_position(config: Any) -> int:
    """Position of the first token of a Transformers configuration: RoBERTa counts from pad_token_id + 1."""
    return int(config.pad_token_id) + 1 if config.model_type in _COUNTED_FROM_PADDING else 0
