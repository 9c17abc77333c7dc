"""Joint training of all exits, as for text. BERT Loses Patience's Table 6 evaluates its criteria on such a model."""

from collections.abc import Sequence

from pipeline.training.recipes.joint import RECIPE as TEXT_JOINT
from pipeline.training.recipes.vision.base import VisionRecipe


class Joint(VisionRecipe):
    """L = sum_j j L_j / sum_j j over the exits (BERT Loses Patience, equation 6), whatever they cost."""

    name = "joint"

    def weights(self, costs: Sequence[float], done: float) -> list[float]:
        return TEXT_JOINT.selection_weights(len(costs))  # equation 6 is written once


RECIPE = Joint()
