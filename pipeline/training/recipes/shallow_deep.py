"""Shallow-Deep's own training: early exits come in slowly, and never weigh more than they cost (Kaya et al. 2019)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment, exit_losses
from pipeline.training.recipes.joint import Joint

START = 0.01


class ShallowDeep(Joint):
    """L = L_last + sum_i tau_i L_i; tau_i rises linearly over training from 0.01 to C_i (Kaya et al. 2019).

    C_i is the cost of leaving at exit i relative to the whole network. Differences from the released code
    (model_funcs.py): C_i is counted from this network, not fixed at 0.15 ... 0.90; tau_i moves every step, not every
    epoch; the code's min(C_i, 0.01 + epoch / epochs * C_i) arrives a little before the end, the paper's line at it.

    Epochs and grid points are picked by the exits' scores as the loss weighs them at the end of training, so that no
    criterion and no threshold is favoured.
    """

    name = "shallow_deep"

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, now: Moment) -> Tensor:
        losses = exit_losses(model(batch).float(), labels)
        weights = torch.tensor(loss_weights(now.costs, now.done), dtype=losses.dtype, device=losses.device)
        return (weights * losses).sum()

    def selection_weights(self, costs: Sequence[float]) -> list[float]:
        final = loss_weights(costs, 1.0)
        return [weight / sum(final) for weight in final]


def loss_weights(costs: Sequence[float], done: float) -> list[float]:
    """Weight of each exit's loss, w_i, at a share of training done.

    >>> loss_weights([0.15, 1.0], 0.0), loss_weights([0.15, 1.0], 1.0)
    ([0.01, 1.0], [0.15, 1.0])
    """
    return [START + done * (cost - START) for cost in costs[:-1]] + [1.0]


RECIPE = ShallowDeep()
