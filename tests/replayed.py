"""Live equals replay for any engine, and small networks to try it on; on either device."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.criteria.base import Criterion
from pipeline.evaluation.point import point_of, sweep_at
from pipeline.evaluation.trace import Trace
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.residual import ResNet
from tests.test_backbones import centre

Live = Callable[[Criterion, float], tuple[np.ndarray, np.ndarray]]
"""A criterion at a threshold to each row's exit, from 0, (n,), and its logits, (n, outputs)."""


def check_live_equals_replay(logits: np.ndarray, channels: Mapping[str, np.ndarray], live: Live) -> None:
    """Every criterion at several of its thresholds leaves as in a replay of what the same passes gave.

    Args:
        logits: of all exits, (n, exits, outputs).
        channels: (n, exits) each.
    """
    rows, exits, classes = logits.shape
    depth = np.arange(1.0, exits + 1)
    trace = Trace(
        "classification", logits, np.arange(rows) % classes * 1.0, np.arange(rows), depth, np.tile(depth, (rows, 1)),
        np.full(rows, float(exits)), channels=dict(channels),
    )  # fmt: skip
    left = set()
    for name in [name for name, cls in CRITERIA.items() if cls.causal and make(name).applies_to(trace)]:
        fitted = make(name).fit(trace)
        thresholds = fitted.thresholds(exits, classes)
        for threshold in (*thresholds[:: max(1, len(thresholds) // 6)], np.inf):
            swept = sweep_at(trace, point_of(fitted, {}, float(threshold)))
            index, said = live(fitted, float(threshold))
            np.testing.assert_array_equal(index, swept.exit_index[0], err_msg=f"{name} at {threshold}")
            np.testing.assert_array_equal(said.argmax(axis=1), swept.predictions[0], err_msg=f"{name} at {threshold}")
            left |= set(index.tolist())
    assert left == set(range(exits)), "rows leave at every exit"


def check_replayed_in_bf16(model: MultiExit, batches: Sequence[Mapping[str, Tensor]]) -> None:
    """Live equals replay for a model in bf16."""
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        recorded = [model.record(batch, model.channels) for batch in batches]
    logits = torch.cat([part[0] for part in recorded]).float().cpu().numpy()
    channels = {n: torch.cat([part[1][n] for part in recorded]).float().cpu().numpy() for n in model.channels}

    def live(criterion: Criterion, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        answers = [LiveEngine(model, criterion, threshold)(batch) for batch in batches]
        exit_index = np.concatenate([answer.exit_index for answer in answers])
        return exit_index, np.concatenate([answer.logits for answer in answers])

    check_live_equals_replay(logits, channels, live)


def residual_model(depth: int = 8, width: int = 4, device: str = "cpu") -> tuple[MultiExit, dict[str, Tensor]]:
    """A residual network of three classes that nobody trained, and a batch of 30 images on which its exits differ."""
    torch.manual_seed(0)
    network = ResNet(depth, width, [0.5] * 3, [0.25] * 3)
    model = MultiExit(network, range(1, network.layers + 1), 3).eval().to(device)
    batch = {"image": torch.randint(0, 255, (30, 32, 32, 3), dtype=torch.uint8, device=device)}
    with torch.no_grad():
        centre(model, [batch])
    return model, batch
