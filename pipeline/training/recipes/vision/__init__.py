"""Training recipes for residual networks, by name. Holds names only; a recipe loads when a trial uses it.

A package of its own, so that a change of one of these is no change to the text stages' code.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.training.recipes.vision.base import VisionRecipe


@dataclass(frozen=True)
class VisionMethod:
    """What the plan needs to know of a recipe without importing it.

    Attributes:
        version: raised when the recipe, the network or the loop around them changes what is trained; part of a
            trial's key.
        multi_exit: whether there are early exits, and criteria apply.
    """

    name: str
    source: str
    version: int = 1
    multi_exit: bool = True


VISION_METHODS: dict[str, VisionMethod] = {
    method.name: method
    for method in (
        VisionMethod("plain", "one classifier on the last block (He et al. 2016)", multi_exit=False),
        VisionMethod("joint", "all exits trained together, equation 6 of BERT Loses Patience"),
        VisionMethod("shallow_deep", "all exits trained together, early ones ramped up (Kaya et al. 2019)"),
    )
}


def load_vision_recipe(name: str) -> "VisionRecipe":
    """Import a recipe by its name."""
    # Spelled out rather than built from the name, so that the import graph (and so DVC) sees what is reachable.
    if name == "plain":
        from pipeline.training.recipes.vision.plain import RECIPE as PLAIN

        return PLAIN
    if name == "joint":
        from pipeline.training.recipes.vision.joint import RECIPE as JOINT

        return JOINT
    if name == "shallow_deep":
        from pipeline.training.recipes.vision.shallow_deep import RECIPE as SHALLOW_DEEP

        return SHALLOW_DEEP
    raise KeyError(name)
