"""Shallow-Deep's training: the weights of early exits rise to their relative costs (Kaya et al. 2019)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment, exit_losses
from pipeline.training.recipes.joint import Joint

START = 0.01


class ShallowDeep(Joint):
    """L = L_last + sum_i tau_i L_i; tau_i rises linearly over training from 0.01 to C_i (Kaya et al. 2019).

    C_i is the cost of leaving at exit i relative to the whole network. There are three differences from the released
    code (model_funcs.py): C_i is counted for this network, not fixed at 0.15 ... 0.90; tau_i changes every step, not
    every epoch; and it reaches C_i at the end, as in the paper, where the code's min(C_i, 0.01 + epoch / epochs * C_i)
    reaches it a little earlier.

    The exits' scores, with the weights of the loss at the end of training, pick epochs and grid points, so that no
    criterion or threshold is favoured.
    """

    name = "shallow_deep"

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        losses = exit_losses(model(batch).float(), labels)
        weights = torch.tensor(loss_weights(moment.costs, moment.done), dtype=losses.dtype, device=losses.device)
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
