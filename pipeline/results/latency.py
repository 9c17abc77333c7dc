"""What latency leaves: wall time at the operating points that evaluate chose."""

from typing import ClassVar

from pipeline.results.base import Part, Result
from pipeline.results.point import OperatingPoint


class LatencyRow(Part):
    """One model at one operating point in one mode."""

    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    key: str
    """The trial that was timed, of the first seed."""
    point: OperatingPoint
    """How it leaves; all layers: the full pass that the others are measured against."""
    mode: str
    """"batch 1", or "batch 32"."""
    examples: int
    """Rows timed."""
    ms_per_example: float
    """Median over repeats, in milliseconds."""
    measured_speedup: float
    """Seconds of the full pass / seconds."""
    layer_speedup: float
    """Layers of this model / mean layers run."""
    flop_speedup: float
    """FLOPs of this model's full pass with one head / FLOPs spent."""


class Measured(Part):
    """Wall times on one device."""

    device: str
    """"cpu", or the GPU's name."""
    threads: int
    """Compute threads."""
    rows: tuple[LatencyRow, ...]
    """By model, mode and operating point."""


class Latency(Result):
    """`outputs/latency/<task>.json`."""

    made_by: ClassVar[str] = "latency"
    task: str
    """The task's name."""
    measured: Measured | None
    """None: `latency.tasks` does not name the task."""
