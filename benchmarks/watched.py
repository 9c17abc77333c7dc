"""What the two models of an attack cost: seconds in each, and the matrix products that they ran."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.models.roof import MatrixRate, Product

HIDDEN, LAYERS = 384, 6
"""MiniLM's shape, which the victim and the sentence encoder share."""


@dataclass
class Spent:
    """One example's costs.

    Attributes:
        cpu: the processors' seconds.
        models: the processors' seconds by model.
        products: rows of the matrix products of a full pass (texts times tokens) to how many passes had them.
    """

    cpu: float = 0.0
    models: dict[str, float] = field(default_factory=lambda: {"victim": 0.0, "encoder": 0.0})
    products: Counter[int] = field(default_factory=Counter)


class Watched:
    """An engine, or an encoder's `means`, whose calls are noted."""

    def __init__(self, inner: Any, name: str, spent: Spent) -> None:
        self.inner, self.name, self.spent = inner, name, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, batch: Mapping[str, Tensor]) -> Any:
        started = time.process_time()
        out = self.inner(batch)
        self.spent.models[self.name] += time.process_time() - started
        self.spent.products[batch["input_ids"].numel()] += 1
        return out


def explain(spent: Sequence[Spent], ratio: float) -> str:
    """Where the time goes, and what would be left of it if the matrix products were all.

    Args:
        spent: of each example, one model that runs all layers.
        ratio: how many times faster than TextAttack these attacks were.
    """
    whole = sum(one.cpu for one in spent)
    models = {name: sum(one.models[name] for one in spent) for name in spent[0].models}
    passes = sum((one.products for one in spent), Counter[int]())
    flops = 2e-9 * LAYERS * 12 * HIDDEN**2 * sum(rows * count for rows, count in passes.items())
    peak = _rate(passes, limit=40 / flops)
    share = flops / peak / whole
    return (
        f"{', '.join(f'{name} {seconds / whole:.0%}' for name, seconds in models.items())} of the CPU time. Products "
        f"with weights: {flops:.0f} GFLOP, at {flops / sum(models.values()):.0f} GFLOP/s within the models; alone they "
        f"run at {peak:.0f}, in {share:.0%} of the time. If all else took none, the ratio would be {ratio / share:.2f}."
    )


def _rate(passes: Counter[int], limit: float) -> float:
    """GFLOP/s of the products alone, the fastest way that Torch and ONNX Runtime have.

    Args:
        limit: share of the passes that is run.
    """
    near = Counter[int]()
    for rows, count in passes.items():
        near[max(64, round(rows / 64) * 64)] += count
    shapes = ((HIDDEN, HIDDEN, 4), (HIDDEN, 4 * HIDDEN, 1), (4 * HIDDEN, HIDDEN, 1))
    rate = MatrixRate(
        [
            Product(rows, inner, outer, round(times * LAYERS * count * limit) or 1, LAYERS)
            for rows, count in near.items()
            for inner, outer, times in shapes
        ],
        ["float32"],
        1,
        "cpu",
        time.process_time,
    )
    for _ in range(3):
        rate.run()
    return rate.rates()["float32"]
