"""Training recipes by name. Holds names only; a recipe's module loads when a trial uses it."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.methods.base import Recipe


@dataclass(frozen=True)
class MethodInfo:
    """What the plan needs to know of a recipe without importing it.

    Attributes:
        parent: method whose selected trial of the same seed this one starts from.
        version: raised when the recipe changes what it trains; part of a trial's key.
        multi_exit: whether exit criteria apply to its models.
        channels: what its models record beside the logits, for criteria that read it.
    """

    name: str
    module: str
    source: str
    parent: str | None = None
    version: int = 1
    multi_exit: bool = True
    channels: tuple[str, ...] = ()


METHODS: dict[str, MethodInfo] = {
    info.name: info
    for info in (
        MethodInfo(
            "single_exit", "single_exit", "plain fine-tuning, one classifier on the last layer", multi_exit=False
        ),
        MethodInfo("joint", "joint", "all exits trained together, equation 6 of BERT Loses Patience"),
        MethodInfo(
            "two_stage",
            "two_stage",
            "exits trained on a frozen fine-tuned backbone (DeeBERT, Xin et al. 2020)",
            parent="single_exit",
        ),
        MethodInfo(
            "berxit",
            "berxit",
            "a head that learns when an exit is right, on a frozen joint model (BERxiT, Xin et al. 2021)",
            parent="joint",
            channels=("lte",),
        ),
    )
}


def load_recipe(name: str) -> "Recipe":
    """Import a recipe by its name."""
    module = importlib.import_module(f"pipeline.methods.{METHODS[name].module}")
    recipe: Recipe = module.RECIPE
    return recipe
