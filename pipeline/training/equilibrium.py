"""Gradient equilibrium (Li et al. 2019, "Improved Techniques for Training Adaptive Deep Networks", section 3.1)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.models.multi_exit import MultiExit


def balanced(model: MultiExit, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits of all exits, (n, exits, outputs), equal to `model(batch)` but for the gradient that comes back.

    With k exits, the gradient from exit i into its layer is multiplied by 1 / (k - i + 1), and the gradient from behind
    it by (k - i) / (k - i + 1). So a layer's gradient is the mean of the gradients of all exits behind it, where plain
    training has their sum, which grows towards the first layers. An exit's own parameters, and a pooler that exits
    share, get the gradient of their losses unchanged. In Li et al.'s code the factors stand at the same places.
    """
    exits = len(model.exits)
    state = model.backbone.embed(batch)
    answers: list[Tensor] = []
    for index in range(model.backbone.layers):
        state = model.backbone.layer(index, state)
        if index + 1 == model.exits[len(answers)]:
            behind = exits - len(answers) - 1
            arriving = scaled(state.hidden, 1 / (behind + 1))
            answers.append(model.answer(len(answers), state._replace(hidden=arriving)))
            state = state._replace(hidden=scaled(arriving, behind))
    return torch.stack(answers, dim=1)


def scaled(x: Tensor, factor: float) -> Tensor:
    """The same numbers, with a gradient that is multiplied by a factor on its way back."""
    y = x.view_as(x)
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return y
