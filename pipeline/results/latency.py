"""Results of latency: wall time at the operating points that evaluate chose."""

from typing import ClassVar

from pipeline.results.base import Amount, Name, Natural, Part, Ratio, Result, Text, refuse_repeats
from pipeline.results.point import OperatingPoint


class LatencyRow(Part):
    """One model at one operating point in one mode."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    key: Name
    """Key of the timed trial, of the first seed."""
    point: OperatingPoint
    """Operating point; "all layers" is the full pass, to which speed-ups are relative."""
    mode: Text
    """"batch 1", or "batch 32"."""
    examples: Natural
    """Number of timed rows."""
    ms_per_example: Amount
    """Median over repeats, in milliseconds."""
    measured_speedup: Ratio
    """Seconds of the full pass / seconds."""
    own_layer_speedup: Ratio
    """Layers of this model / mean layers run; `layer_speedup` elsewhere is relative to the plain model."""
    own_flop_speedup: Ratio
    """FLOPs of this model's full pass with one head / FLOPs spent; `flop_speedup` elsewhere is relative to the plain
    model."""


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
    """A row per model, mode and operating point."""

    def check(self) -> None:
        refuse_repeats("rows", ((row.backbone, row.method, row.mode, row.point.name) for row in self.rows))


class Latency(Result):
    """`outputs/latency/<task>.json`."""

    made_by: ClassVar[str] = "latency"
    schema_version: ClassVar[int] = 4
    task: Name
    """The task's name."""
    measured: Measured | None
    """None: `latency.tasks` does not name the task."""
