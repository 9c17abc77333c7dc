"""Results of latency: wall time at the operating points that evaluate chose."""

from typing import ClassVar, Literal

from pipeline.results.base import (
    Amount,
    Count,
    Name,
    Natural,
    Part,
    Ratio,
    Result,
    Score,
    Text,
    refuse_repeats,
)
from pipeline.results.point import OperatingPoint


class LatencyRow(Part):
    """One model at one operating point in one engine and mode."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    key: Name
    """Key of the timed trial, of the first seed."""
    point: OperatingPoint
    """Operating point, chosen on this engine's own traces; "all layers" is the full pass, to which speed-ups are
    relative."""
    engine: Literal["pytorch", "onnx"]
    """What ran: the live engine in PyTorch, or the exported graphs in ONNX Runtime, on the CPU."""
    precision: Literal["float32", "int8"]
    """Arithmetic of the layers."""
    score: Score | None
    """Score of this model at this point in this engine, on all rows of the report split."""
    mode: Text
    """"batch 1", or "batch 32"."""
    examples: Natural
    """Number of timed rows."""
    exits: tuple[Count, ...]
    """Number of timed rows that left at each exit."""
    ms_per_example: Amount
    """Median over repeats, in milliseconds."""
    repeats_ms: tuple[Amount, ...]
    """Milliseconds per example of each repeat. The same repeat of other rows ran beside it."""
    p50_ms: Amount
    """Median time of a call, which answers a batch, over the calls of all repeats, in milliseconds."""
    p99_ms: Amount
    """The time that 99% of these calls keep to, in milliseconds; near the slowest call where there are few."""
    measured_speedup: Ratio
    """Seconds of the full pass in the same engine / seconds."""
    own_layer_speedup: Ratio
    """Layers of this model / mean layers run; `layer_speedup` elsewhere is relative to the plain model."""
    own_flop_speedup: Ratio
    """FLOPs of this model's full pass with one head / FLOPs spent; `flop_speedup` elsewhere is relative to the plain
    model."""

    def check(self) -> None:
        if not self.repeats_ms:
            raise ValueError("repeats_ms: there is none")
        if sum(self.exits) != self.examples:
            raise ValueError(f"exits: {sum(self.exits)} rows left of {self.examples}")
        if self.precision != "float32" and self.engine == "pytorch":
            raise ValueError(f"precision: pytorch has no {self.precision}")

    @property
    def rows_per_second(self) -> float:
        """Examples answered in a second, in the median repeat."""
        return 1000 / self.ms_per_example if self.ms_per_example else float("inf")


class Measured(Part):
    """Wall times on one device."""

    device: Text
    """"cpu", or the GPU's name."""
    machine: Text
    """The machine's processor, with its number of CPUs."""
    node: Text | None
    """Kind of node that was asked for; None: the machine of the stage."""
    threads: Natural
    """Number of compute threads."""
    rows: tuple[LatencyRow, ...]
    """A row per model, mode, engine and operating point."""

    def check(self) -> None:
        names = ((row.backbone, row.method, row.mode, row.engine, row.precision, row.point.name) for row in self.rows)
        refuse_repeats("rows", names)
        if len({len(row.repeats_ms) for row in self.rows}) > 1:
            raise ValueError("rows: repeats_ms are of several lengths")


class Latency(Result):
    """`outputs/latency/<task>.json`."""

    made_by: ClassVar[str] = "latency"
    schema_version: ClassVar[int] = 5
    """Version 4 had one engine and no times of calls."""
    task: Name
    """The task's name."""
    measured: Measured | None
    """None: `latency.tasks` does not name the task."""
