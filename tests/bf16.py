"""Live equals replay in bf16, for tests on either device."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.evaluation.point import point_of, sweep_at
from pipeline.evaluation.trace import Trace
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit


def check_live_equals_replay(model: MultiExit, batches: Sequence[Mapping[str, Tensor]]) -> None:
    """Every criterion at several of its thresholds leaves as in a replay of what the same passes gave, in bf16.

    Args:
        model: in bf16.
    """
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        recorded = [model.record(batch, model.channels) for batch in batches]
    logits = torch.cat([part[0] for part in recorded]).float().cpu().numpy()
    channels = {n: torch.cat([part[1][n] for part in recorded]).float().cpu().numpy() for n in model.channels}
    rows, exits, classes = logits.shape
    depth = np.arange(1.0, exits + 1)
    trace = Trace(
        "classification", logits, np.arange(rows) % classes * 1.0, np.arange(rows), depth, np.tile(depth, (rows, 1)),
        np.full(rows, float(exits)), channels=channels,
    )  # fmt: skip
    left = set()
    for name in [name for name, cls in CRITERIA.items() if cls.causal and make(name).applies_to(trace)]:
        fitted = make(name).fit(trace)
        thresholds = fitted.thresholds(exits, classes)
        for threshold in (*thresholds[:: max(1, len(thresholds) // 6)], np.inf):
            swept = sweep_at(trace, point_of(fitted, {}, float(threshold)))
            engine = LiveEngine(model, fitted, float(threshold))
            answers = [engine(batch) for batch in batches]
            index = torch.cat([answer.exit_index for answer in answers]).numpy()
            np.testing.assert_array_equal(index, swept.exit_index[0], err_msg=f"{name} at {threshold}")
            said = torch.cat([answer.logits for answer in answers]).argmax(dim=1).numpy()
            np.testing.assert_array_equal(said, swept.predictions[0], err_msg=f"{name} at {threshold}")
            left |= set(index.tolist())
    assert left == set(range(exits)), "rows leave at every exit"
