"""Methods by name, without importing their recipes."""

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.tasks.task import Modality

if TYPE_CHECKING:
    from pipeline.training.recipes.base import Recipe


@dataclass(frozen=True)
class MethodInfo:
    """A method, as the plan needs it; its recipe is the module of its name in `recipes`.

    Attributes:
        source: one line for `python -m pipeline list methods`: description and paper.
        parent: method from whose selected trial of the same seed this one starts.
        multi_exit: whether its models have early exits, so that criteria apply.
        channels: channels that its models record beside the logits.
        modalities: modalities of the tasks that it serves.
        takes: settings that its entry in params.yaml may have (pipeline/training/regimes.py).
    """

    name: str
    source: str
    parent: str | None = None
    multi_exit: bool = True
    channels: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = ("text",)
    takes: tuple[str, ...] = ()


METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "single_exit",
            "plain training, one classifier on the last layer",
            multi_exit=False,
            modalities=("text", "image"),
            takes=("heads",),
        ),
        MethodInfo(
            "joint",
            "all exits trained together, equation 6 of BERT Loses Patience",
            modalities=("text", "image"),
            takes=("weights", "gradients", "heads"),
        ),
        MethodInfo(
            "alternating",
            "the last exit and all exits trained by turns, a batch each (BERxiT, Xin et al. 2021)",
            modalities=("text", "image"),
            takes=("weights", "heads"),
        ),
        MethodInfo(
            "mixed",
            "all exits trained together, from a fine-tuned backbone on (Kubaty et al. 2024)",
            parent="single_exit",
            modalities=("text", "image"),
            takes=("weights", "gradients", "heads"),
        ),
        MethodInfo(
            "shallow_deep",
            "all exits trained together, early ones ramped up (Kaya et al. 2019)",
            modalities=("image",),
        ),
        MethodInfo(
            "two_stage",
            "exits trained on a frozen fine-tuned backbone (DeeBERT, Xin et al. 2020)",
            parent="single_exit",
            takes=("heads",),
        ),
        MethodInfo(
            "self_distilled",
            "exits that learn from the last one, on a frozen fine-tuned backbone (FastBERT, Liu et al. 2020)",
            parent="single_exit",
            takes=("heads",),
        ),
        MethodInfo(
            "berxit",
            "a head that learns when an exit is right, on a frozen joint model (BERxiT, Xin et al. 2021)",
            parent="joint",
            channels=("lte",),
        ),
        MethodInfo("first_half", "the first half of the layers, fine-tuned (6L)", multi_exit=False),
        MethodInfo(
            "first_three_quarters",
            "the first three quarters of the layers, fine-tuned (9L)",
            multi_exit=False,
        ),
        MethodInfo(
            "layer_drop",
            "layers dropped in training, every other one kept (LayerDrop, Fan et al. 2020)",
            multi_exit=False,
        ),
        MethodInfo(
            "head_prune",
            "half of the attention heads removed, those of least importance (Michel et al. 2019)",
            parent="single_exit",
            multi_exit=False,
        ),
        MethodInfo(
            "patient_distillation",
            "the first half of the layers, taught by every other layer of the whole (BERT-PKD, Sun et al. 2019)",
            parent="single_exit",
            multi_exit=False,
        ),
        MethodInfo(
            "theseus",
            "pairs of layers replaced by single ones, more and more often (BERT-of-Theseus, Xu et al. 2020)",
            parent="single_exit",
            multi_exit=False,
        ),
    )
}


def load_recipe(name: str, regime: Mapping[str, str] | None = None) -> "Recipe":
    """Import the recipe of a method, and set its regime.

    Args:
        regime: `weights` and `gradients`, where they are not the method's own; `heads` is the backbone's.
    """
    module = importlib.import_module(f"pipeline.training.recipes.{name}")
    recipe: Recipe = copy.copy(module.RECIPE)
    for setting, value in (regime or {}).items():
        if setting != "heads":
            setattr(recipe, setting, value)
    return recipe
