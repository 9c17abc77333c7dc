"""The optimiser and schedule of each modality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.9
MILESTONES = (0.35, 0.60, 0.85)
"""Shares of training after which the learning rate of images falls to a tenth."""


@dataclass(frozen=True)
class Optimisation:
    """An optimiser with its schedule.

    Attributes:
        schedule: share of training done, 0..1, to a factor on the learning rate.
        stop_after: epochs without a better selection score before training stops.
        clip_norm: largest norm of all gradients; None: no clipping.
    """

    optimizer: torch.optim.Optimizer
    schedule: Callable[[float], float]
    stop_after: int
    clip_norm: float | None = None


def optimisation(
    modality: str, parameters: Sequence[nn.Parameter], learning_rate: float, options: Mapping[str, Any]
) -> Optimisation:
    """The optimiser of a modality; `options` is the block `training` of a trial's settings.

    Texts: AdamW with weight decay on matrices only, as in the paper's code. Images: SGD with momentum 0.9 and weight
    decay on every parameter, as in He et al. (2016, 4.2) and Shallow-Deep's code.
    """
    if modality == "image":
        sgd = torch.optim.SGD(
            parameters, lr=learning_rate, momentum=MOMENTUM, weight_decay=options["weight_decay"], fused=True
        )
        return Optimisation(sgd, steps, stop_after=options["epochs"])
    decay = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": options["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)
    return Optimisation(adam, warmup_linear(options["warmup"]), options["stop_after"], options["clip_norm"])


def warmup_linear(warmup: float) -> Callable[[float], float]:
    """Rise from 0 to 1 over the share `warmup` of training, then fall linearly to 0.

    Update k of n, counted from 1, has the factor that Transformers' `get_linear_schedule_with_warmup` gives to count k.
    Transformers counts from 0 to n - 1, so that its first update under a warm-up is at 0; here the last one is.
    """

    def factor(done: float) -> float:
        if done < warmup:
            return done / warmup
        return max(0.0, (1.0 - done) / (1.0 - warmup))

    return factor


def steps(done: float) -> float:
    """Factor on the learning rate, which falls to a tenth after 35%, 60% and 85% of training.

    This is Shallow-Deep's schedule (epochs 35, 60 and 85 of 100, from 0.1), which BERT Loses Patience follows. He et
    al. step at 50% and 75%.
    """
    return float(0.1 ** sum(done > share for share in MILESTONES))
