"""Module replacing (BERT-of-Theseus, Xu et al. 2020): single layers replace pairs of layers, with a rising rate."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.encoders.thinning import copied, thinned
from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Moment, Start
from pipeline.training.recipes.first_half import FirstHalf, first_layers

BASE_RATE, REPLACING = 0.3, 0.5
"""Replacement rate at the start, and the share of training over which it rises to 1."""


class Theseus(FirstHalf):
    """y_i+1 = r_i scc_i(y_i) + (1 - r_i) prd_i(y_i), r_i ~ Bernoulli(p) for each batch (equation 3 of Xu et al.);
    p = min(1, k t + b) (equation 6), from b = 0.3 to 1 over the first half of training.

    Predecessors are the frozen layers of the fine-tuned model, grouped into as many modules as there are successors.
    Successor i starts as the predecessor's layer i, as in the released code. While the rate rises, only successors are
    trained. In the second half ("successor fine-tuning") all modules are successors, and all parameters are trained.
    The score of the stored model, successors alone, picks the epoch.
    """

    name = "theseus"

    def build(self, start: Start) -> MultiExit:
        parent = start.teacher()
        layers = parent.backbone.layers
        backbone = copied(thinned(parent.backbone, range(first_layers(layers, self.share))))
        model = start.model(backbone, self.exits(backbone.exit_places()))
        model.heads.load_state_dict(parent.heads.state_dict())
        return model

    def objective(self, model: MultiExit, batch: Mapping[str, Tensor], labels: Tensor, moment: Moment) -> Tensor:
        assert moment.parent is not None
        rate = replacement_rate(moment.done)
        for parameter in around(model):
            parameter.requires_grad_(rate >= 1)
        replaced = torch.rand(model.backbone.layers) < rate
        if not replaced.any():  # such a batch would have no gradient
            replaced[torch.randint(len(replaced), ())] = True
        state = mixed(model.backbone, moment.parent.backbone, replaced.tolist(), batch)
        return self.loss(model.answer(0, state)[:, None].float(), labels)


def replacement_rate(done: float) -> float:
    """p at a share of training done.

    >>> [round(replacement_rate(done), 2) for done in (0.0, 0.25, 0.5, 1.0)]
    [0.3, 0.65, 1.0, 1.0]
    """
    return min(1.0, BASE_RATE + (1 - BASE_RATE) * done / REPLACING)


def around(model: MultiExit) -> list[nn.Parameter]:
    """Parameters outside the successors: embedding, pooler and classifier."""
    inside = {id(p) for block in model.backbone.blocks() for p in block.parameters()}
    return [p for p in model.parameters() if id(p) not in inside]


def mixed(successor: Any, predecessor: Any, replaced: list[bool], batch: Mapping[str, Tensor]) -> Any:
    """The state after all modules; each module is the successor's layer or the predecessor's layers."""
    state: Any = successor.embed(batch)
    bounds = [round(i * predecessor.layers / successor.layers) for i in range(successor.layers + 1)]
    for index, use in enumerate(replaced):
        if use:
            state = successor.layer(index, state)
        else:
            for old in range(bounds[index], bounds[index + 1]):
                state = predecessor.layer(old, state)
    return state


RECIPE = Theseus()
