"""Oracle: leave at the first exit that is right. No criterion can beat this bound with the same exits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.evaluation.criteria.base import RecordedScore

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace


@dataclass(frozen=True)
class Oracle(RecordedScore):
    """1 where the exit is right, else 0; the only threshold is 1. A row that no exit gets right runs all layers.

    Classification: an exit is right where it predicts the label. Regression: it is right where its error is at most the
    last exit's, so that leaving costs nothing; a bound may look ahead. A row without a label is never right.
    """

    name: ClassVar[str] = "oracle"
    title: ClassVar[str] = "oracle (bound)"
    source: ClassVar[str] = "bound: looks at the labels"
    probabilities: ClassVar[bool] = False
    reads: ClassVar[str] = "correct"
    regression: ClassVar[bool] = True
    causal: ClassVar[bool] = False

    def values(self, trace: "Trace") -> np.ndarray:
        answers = trace.answers()
        if trace.kind == "classification":
            right = answers == trace.labels[:, None]
        else:
            error = np.abs(answers - trace.labels[:, None])
            right = error <= error[:, -1:]
        return np.asarray(right, dtype=np.float64)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.array([1.0])

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, 1.0


CRITERION = Oracle
