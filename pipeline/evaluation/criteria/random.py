"""Random exit: each exit draws a number. A criterion that uses the row at all must beat this bound."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.errors import ParamsError
from pipeline.evaluation.criteria.base import RecordedScore

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace


@dataclass(frozen=True)
class RandomExit(RecordedScore):
    """A uniform number in [0, 1) per row and exit; a row leaves an exit with probability 1 - theta.

    The number is a hash of (seed, row id, exit), so it does not depend on the other rows of the trace.

    Attributes:
        seed: a whole number, 0 or more; each seed draws other numbers.
    """

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "random (bound)"
    source: ClassVar[str] = "bound: looks at nothing"
    probabilities: ClassVar[bool] = False
    reads: ClassVar[str] = "coins"
    regression: ClassVar[bool] = True
    causal: ClassVar[bool] = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.seed < 2**64 and self.seed == int(self.seed)):  # NaN fails the first test
            raise ParamsError(f"random.seed: {self.seed} is not a whole number from 0 to 2^64 - 1; give one, such as 1")

    def values(self, trace: "Trace") -> np.ndarray:
        start = _mix(np.array([int(self.seed)], dtype=np.uint64))
        rows = _mix(start ^ trace.row_ids.astype(np.int64).view(np.uint64))
        bits = _mix(rows[:, None] + np.arange(trace.exits, dtype=np.uint64) * _STEP)
        return (bits >> np.uint64(11)) * 2.0**-53

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        return np.linspace(0.0, 1.0, 101)

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return 0.0, 1.0


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """One output of SplitMix64 (Steele, Lea and Flood 2014) per state, uint64 to uint64, modulo 2^64.

    NumPy's generators give a stream, where a number per row id is needed.
    """
    z = x + _STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


CRITERION = RandomExit
