"""An exported model at an operating point: what `LiveEngine` is in PyTorch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.evaluation.criteria import Criterion
from pipeline.evaluation.leaving import Leaving
from pipeline.models.deploy.segments import Segments, arrays_of


class GraphEngine:
    """Early-exit inference by graphs, with one criterion at one threshold; each row leaves by itself.

    Args:
        criterion: None runs all layers and the last head only.
        threshold: a row leaves at the first exit whose score reaches it.

    Raises:
        UnsupportedError, ArtifactError: as `Rule`.
    """

    def __init__(self, segments: Segments, criterion: Criterion | None, threshold: float = np.inf) -> None:
        self.model = segments
        self.rule = segments.rule(criterion, threshold)

    def __call__(self, batch: Mapping[str, Any]) -> Leaving:
        """Answer a batch of arrays, or of tensors on the CPU.

        Raises:
            InvalidLogitsError: an exit answered NaN.
        """
        return self.model.answer(arrays_of(batch), self.rule)

    def record(self, batch: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Logits of all exits, (n, exits, outputs), and the channels, (n, exits) each, in one pass."""
        return self.model.record(arrays_of(batch))
