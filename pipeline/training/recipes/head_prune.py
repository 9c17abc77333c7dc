"""Head pruning (Michel et al. 2019): the least important attention heads of the whole model are removed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.models.multi_exit import MultiExit
from pipeline.training.recipes.base import Batches, Start
from pipeline.training.recipes.single_exit import SingleExit

SHARE = 0.5
ROWS = 32
"""Rows per pass when importance is computed."""


class HeadPrune(SingleExit):
    """I_h = mean_x |dL(x) / d xi_h| over the training rows, where xi_h = 1 is a factor on head h's output (equation 2
    of Michel et al.). I_h is divided by the l2 norm over the layer. The half of all heads with the smallest importance
    is removed; each layer keeps at least one.

    Half of the heads gives the 1.2x in FLOPs that BERT Loses Patience prints for this row. The fine-tuned model is
    pruned at once and then trained further; Michel et al. prune in steps without further training. A head that
    ALBERT's layers share counts once, with one factor.
    """

    name = "head_prune"

    def build(self, start: Start) -> MultiExit:
        return start.teacher()

    def decide(self, model: MultiExit, batches: Batches) -> list[list[int]]:
        """The heads that stay in each block."""
        return most_important(head_importance(model, batches, self), 1 - SHARE)

    def change(self, model: MultiExit, decision: list[list[int]]) -> None:
        model.backbone.keep_heads(decision)


def head_importance(model: MultiExit, batches: Batches, recipe: SingleExit) -> list[Tensor]:
    """Mean absolute derivative of a row's loss by each head's factor, (heads,) for each block of the encoder."""
    backbone = model.backbone
    model.eval().requires_grad_(False)
    totals = [torch.zeros(heads) for heads in backbone.heads]
    rows = 0
    for inputs, labels in _parts(batches):
        # A factor per row: the loss is a sum over rows, so each factor gets the derivative of its row's loss.
        gates = [torch.ones(len(labels), heads, device=labels.device, requires_grad=True) for heads in backbone.heads]
        logits = _gated(model, inputs, gates)
        loss = recipe.loss(logits.float(), labels) * len(labels)
        gradients = torch.autograd.grad(loss, gates)
        totals = [total + grad.abs().sum(dim=0).cpu() for total, grad in zip(totals, gradients, strict=True)]
        rows += len(labels)
    return [total / rows for total in totals]


def _parts(batches: Batches) -> Batches:
    """Batches of at most `ROWS` rows; their size changes no result, and larger ones may not fit in memory."""
    for inputs, labels in batches:
        for start in range(0, len(labels), ROWS):
            part = slice(start, start + ROWS)
            yield {name: value[part] for name, value in inputs.items()}, labels[part]


def _gated(model: MultiExit, inputs: Mapping[str, Tensor], gates: list[Tensor]) -> Tensor:
    """Logits, (n, 1, outputs), of the model with a factor on each head's output."""
    backbone = model.backbone
    state: Any = backbone.embed(inputs)
    for index, fast in enumerate(backbone.fast_layers):
        hidden = state.hidden
        for block, run in zip(backbone.blocks_of(index), fast, strict=True):
            hidden = run(hidden, state.bias, gate=gates[block])
        state = state._replace(hidden=hidden)
    return model.answer(0, state)[:, None]


def most_important(importance: list[Tensor], share: float) -> list[list[int]]:
    """Heads to keep in each block: a `share` of all by normalised importance, and the best of each block.

    >>> most_important([torch.tensor([3.0, 4.0]), torch.tensor([0.1, 5.0])], 0.5)
    [[1], [1]]
    >>> most_important([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])], 0.6)
    [[0, 1], [0]]
    """
    scaled = [values / values.norm().clamp_min(1e-12) for values in importance]
    best = [{int(values.argmax())} for values in scaled]
    count = round(share * sum(len(values) for values in scaled))
    every = [(float(value), -block, -head) for block, values in enumerate(scaled) for head, value in enumerate(values)]
    for _, block, head in sorted(every, reverse=True):
        if sum(len(kept) for kept in best) >= count:
            break
        best[-block].add(-head)
    return [sorted(kept) for kept in best]


RECIPE = HeadPrune()
