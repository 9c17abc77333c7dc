"""LayerDrop (Fan et al. 2020): layers are dropped at random in training, so that some can be removed afterwards."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.models.encoders.thinning import thinned
from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment
from pipeline.training.recipes.single_exit import SingleExit

RATE = 0.2


class LayerDrop(SingleExit):
    """Each layer is skipped with probability 0.2, drawn for each batch; layers 2, 4, 6, ... are kept.

    0.2 and "every other" are Fan et al.'s settings for fine-tuning (3.1 and 3.2). As in their paper, no training
    follows the pruning. The pruned model is evaluated, also to pick the epoch. For an ALBERT, whose layers share one
    block, the pruned model runs the block half as often.
    """

    name = "layer_drop"

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        backbone = model.backbone
        state: Any = backbone.embed(batch)
        for index, draw in enumerate(torch.rand(backbone.layers).tolist()):
            if draw >= RATE:
                state = backbone.layer(index, state)
        return self.loss(model.answer(0, state)[:, None].float(), labels)

    def served(self, model: MultiExit) -> MultiExit:
        return model.on(thinned(model.backbone, range(model.backbone.layers)[1::2] or [0]))


RECIPE = LayerDrop()
