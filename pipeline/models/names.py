"""Backbones by name, without importing their modules."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.errors import ParamsError, unknown
from pipeline.settings import Block, Share, Size
from pipeline.tasks.task import Modality

Pooling = Literal["first", "mean"]
Placement = Literal["every_two_convs", "six"]
TAKEN = ("text", "pixels", "source")
"""Names of folders beside those of backbones in a task's prepared data, and of the roles of its files."""
DEMO_POSITIONS = 128
"""Longest input of the demo encoder, in tokens."""
DEMO_LAYERS = 12
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Model types whose positions start behind the padding's id."""
_RESIDUAL = re.compile(r"resnet(\d+)")
_ONLY = {"text": ("hub", "pooling", "layers"), "image": ("width", "exits")}


class BackboneSettings(Block):
    """One entry of params.yaml's `backbones`."""

    hub: str | None = None
    """Texts: hub name or local folder of an encoder of BERT's, ElasticBERT's, RoBERTa's, ALBERT's, ELECTRA's,
    DistilBERT's or MPNet's layout, with its weights in safetensors; required where the backbone's name is not in the
    list."""
    pooling: Pooling | None = None
    """Texts: input of the exits' shared pooler, the first token or the mean over tokens."""
    layers: Size | None = None
    """Texts: number of layers to keep, from the first; no more than the model has."""
    dropout: Share | None = None
    """Dropout before each exit's linear layer when training."""
    width: Annotated[int, Field(ge=1, le=4096, strict=True)] | None = None
    """Images: channels of the first stage of a residual network; 16 in the paper."""
    exits: Placement | None = None
    """Images: places of the exits: after every two convolutions (the paper, Appendix A), or Shallow-Deep's six."""


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone with all its settings.

    Attributes:
        hub: hub name or folder; None for a network that starts from random weights.
        pooling: `first` token or `mean` over tokens, before the shared tanh pooler.
        layers: number of layers to keep, from the first; None keeps all.
        summary: one line for `python -m pipeline list backbones`.
        full_layers: layers of the model that it was distilled from; speed-ups are relative to that model.
        modality: modality of the tasks that it serves.
        depth, width, exits: of a residual network: layers with weights, channels of its first stage, places of exits.
    """

    name: str
    hub: str | None
    pooling: Pooling = "first"
    layers: int | None = None
    dropout: float = 0.1
    summary: str = ""
    full_layers: int | None = None
    modality: Modality = "text"
    depth: int = 0
    width: int = 16
    exits: Placement = "every_two_convs"

    def identity(self, multi_exit: bool) -> dict[str, Any]:
        """The settings that a trial's result depends on, beside the pretrained weights; JSON.

        The placement of exits is left out for a model with one exit, which does not depend on it.
        """
        if self.modality == "text":
            return {name: getattr(self, name) for name in ("pooling", "layers", "dropout", "full_layers")}
        exits = {"exits": self.exits} if multi_exit else {}
        return {"depth": self.depth, "width": self.width, "dropout": self.dropout, **exits}


BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            "demo-albert", None, dropout=0.0, summary="12 shared layers of hidden 64, random weights, word tokens"
        ),
        BackboneSpec("albert-base", "albert/albert-base-v2", summary="12 shared layers, the paper's main backbone"),
        BackboneSpec("albert-large", "albert/albert-large-v2", summary="24 shared layers, the paper's Table 4"),
        BackboneSpec("bert-base", "google-bert/bert-base-uncased", summary="12 layers, the paper's Table 2"),
        BackboneSpec("bert-large", "google-bert/bert-large-uncased", summary="24 layers of hidden 1,024"),
        BackboneSpec("roberta-base", "FacebookAI/roberta-base", summary="12 layers, byte-level tokens"),
        BackboneSpec(
            "distilbert",
            "distilbert/distilbert-base-uncased",
            summary="6 layers distilled from bert-base, measured against its 12",
            full_layers=12,
        ),
        BackboneSpec(
            "minilm",
            "sentence-transformers/all-MiniLM-L6-v2",
            pooling="mean",
            summary="6 layers of hidden 384, small and fast",
        ),
        BackboneSpec(
            "minilm-l12", "microsoft/MiniLM-L12-H384-uncased", summary="12 layers of hidden 384, distilled"
        ),
        BackboneSpec(
            "mpnet-base",
            "sentence-transformers/all-mpnet-base-v2",
            pooling="mean",
            summary="12 layers of bert-base's size with relative positions, tuned for sentences",
        ),
        BackboneSpec(
            "elasticbert-base",
            "fnlp/elasticbert-base",
            summary="BERT's 12 layers pretrained with a pooler and an exit after each",
        ),
        *(
            BackboneSpec(
                f"resnet{depth}", None, dropout=0.0, modality="image", depth=depth,
                summary=f"residual network of {depth} layers for 32x32 images; any resnet<6n + 2> serves",
            )
            for depth in (20, 56)
        ),
    )
}  # fmt: skip


def resolve_backbone(name: str, settings: BackboneSettings) -> BackboneSpec:
    """The complete backbone of an entry of `backbones`.

    Raises:
        ParamsError: an unknown name without `hub`, a residual network whose depth is not 6n + 2, a setting of the other
            modality, or more layers than the demo's encoder has.
    """
    if name in TAKEN:
        raise ParamsError(f"backbones.{name}: the name is taken, for a folder of prepared data; give another")
    template = BACKBONES.get(name) or _residual(name)
    if template is None and settings.hub is None:
        raise unknown("backbone", name, BACKBONES, key="backbones")
    base = template or BackboneSpec(name, settings.hub)
    values = settings.model_dump(exclude_none=True)
    for setting in _ONLY["image" if base.modality == "text" else "text"]:
        if setting in values:
            raise ParamsError(
                f"backbones.{name}.{setting}: {values[setting]!r}; a backbone for {base.modality}s has no {setting}, "
                "take it out"
            )
    spec = replace(base, **values)
    if spec.hub is None and spec.layers is not None and spec.layers > DEMO_LAYERS:
        raise too_many_layers(f"backbones.{name}", spec.layers, name, DEMO_LAYERS)
    return spec


def too_many_layers(key: str, layers: int, name: str, has: int) -> ParamsError:
    """The error for more `layers` than a model has.

    >>> str(too_many_layers("backbones.mine", 13, "some/encoder", 12))
    'backbones.mine.layers: 13; some/encoder has 12, give 12 or fewer'
    """
    return ParamsError(f"{key}.layers: {layers}; {name} has {has}, give {has} or fewer")


def _residual(name: str) -> BackboneSpec | None:
    """The backbone resnet20, resnet56, ...; None for another name."""
    match = _RESIDUAL.fullmatch(name)
    if match is None:
        return None
    depth = int(match[1])
    check_depth(depth, f"backbones.{name}")
    return replace(BACKBONES["resnet56"], name=name, depth=depth)


def check_depth(depth: int, key: str) -> None:
    """Raise ParamsError where the depth of a residual network is not 6n + 2 (He et al. 2016, 4.2)."""
    if depth not in range(8, 1203, 6):
        raise ParamsError(f"{key}: depth {depth} is not 6n + 2; take 8, 14, 20, 32, 44, 56 or 110, at most 1202")


def hub_path(name: str, mirror: Path | None) -> str:
    """The path from which to load a hub name: the mirror's folder where it exists, else the name itself."""
    if mirror is not None and (mirror / "models" / name).is_dir():
        return str(mirror / "models" / name)
    return name


def first_position(config: Any) -> int:
    """Position of the first token of a Transformers configuration: RoBERTa and MPNet count from pad_token_id + 1."""
    return int(config.pad_token_id) + 1 if config.model_type in COUNTED_FROM_PADDING else 0
