"""Plain training: one classifier on the last block. The "ResNet-56" row of BERT Loses Patience's Table 6."""

from collections.abc import Sequence

from pipeline.training.recipes.vision.base import VisionRecipe


class Plain(VisionRecipe):
    """Cross-entropy of the last block alone (He et al. 2016); selected on its accuracy."""

    name = "plain"

    def weights(self, costs: Sequence[float], done: float) -> list[float]:
        return [0.0] * (len(costs) - 1) + [1.0]


RECIPE = Plain()
