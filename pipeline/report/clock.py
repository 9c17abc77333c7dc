"""What a model gains by the clock, one row at a time, and how far the repeats of the timing agree."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.evaluation.intervals import median_range
from pipeline.report.numbers import times
from pipeline.results import LatencyRow, Row

WORTH = 1.05
"""Speed-up below which nothing is gained: by the clock where it was timed, else in layers."""


@dataclass(frozen=True)
class Clock:
    """One timed model at an operating point beside its own full pass in the same engine.

    Attributes:
        speedup: of the medians over repeats.
        low, high: range of the speed-up over repeats, of which the same one of both ran side by side; from six repeats
            on without the extremes (`median_range`).
        repeats: how many.
        layers: layer speed-up of the same model on the same rows; a row's is a median over seeds.
    """

    speedup: float
    low: float
    high: float
    repeats: int
    layers: float

    @classmethod
    def of(cls, row: LatencyRow, rows: Iterable[LatencyRow]) -> "Clock":
        """The clock of a timed row.

        Args:
            rows: all of its task, with the full pass among them.
        """
        full = next(one for one in rows if one.point.criterion is None and _setting(one) == _setting(row))
        ratios = [a / b if b else row.measured_speedup for a, b in zip(full.repeats_ms, row.repeats_ms, strict=True)]
        low, high = median_range(ratios)
        speedup = row.measured_speedup
        return cls(speedup, min(low, speedup), max(high, speedup), len(ratios), row.own_layer_speedup)

    @classmethod
    def alone(cls, row: Row, rows: Iterable[LatencyRow]) -> "Clock | None":
        """The clock of a row of evaluate, one example at a time in PyTorch; None where it was not timed so."""
        rows = [*rows]
        wanted = (row.backbone, row.method, row.criterion, "batch 1", "pytorch", "float32")
        timed = (
            one
            for one in rows
            if (one.backbone, one.method, one.point.criterion, one.mode, one.engine, one.precision) == wanted
        )
        return next((cls.of(one, rows) for one in timed), None)

    @property
    def gained(self) -> bool | None:
        """Whether it is worth it; None where the repeats lie on both sides of `WORTH`."""
        return None if self.low < WORTH <= self.high else self.low >= WORTH

    @property
    def spread(self) -> str:
        """The range over repeats in words; nothing for a single one."""
        return f"{times(self.low)} to {times(self.high)} over {self.repeats} repeats" if self.repeats > 1 else ""

    @property
    def beside(self) -> str:
        """What must stand beside the speed-up where a median over seeds does."""
        return "; ".join(filter(None, (self.spread, self.model)))

    @property
    def model(self) -> str:
        """The timed model's own layer speed-up in words."""
        return f"the timed model: {times(self.layers)} in layers"


def _setting(row: LatencyRow) -> tuple[object, ...]:
    return row.backbone, row.method, row.mode, row.threads, row.engine, row.precision
