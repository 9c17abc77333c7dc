"""Shallow-Deep's own training: early exits come in slowly, and never weigh more than they cost (Kaya et al. 2019)."""

from collections.abc import Sequence

from pipeline.training.recipes.vision.base import VisionRecipe

START = 0.01


class ShallowDeep(VisionRecipe):
    """L = L_last + sum_i tau_i L_i; tau_i rises linearly over training from 0.01 to C_i (Kaya et al. 2019).

    C_i is the cost of leaving at exit i relative to the whole network. Differences from the released code
    (model_funcs.py): C_i is counted from this network, not fixed at 0.15 ... 0.90; tau_i moves every step, not every
    epoch; the code's min(C_i, 0.01 + epoch / epochs * C_i) arrives a little before the end, the paper's line at it.
    """

    name = "shallow_deep"

    def weights(self, costs: Sequence[float], done: float) -> list[float]:
        return [START + done * (cost - START) for cost in costs[:-1]] + [1.0]


RECIPE = ShallowDeep()
