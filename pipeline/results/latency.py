"""Results of latency: wall time at the operating points that evaluate chose."""

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
    """Key of the timed trial, of the first seed."""
    point: OperatingPoint
    """Operating point; "all layers" is the full pass, to which speed-ups are relative."""
    mode: str
    """"batch 1", or "batch 32"."""
    examples: int
    """Number of timed rows."""
    ms_per_example: float
    """Median over repeats, in milliseconds."""
    measured_speedup: float
    """Seconds of the full pass / seconds."""
    own_layer_speedup: float
    """Layers of this model / mean layers run; `layer_speedup` elsewhere is relative to the plain model."""
    own_flop_speedup: float
    """FLOPs of this model's full pass with one head / FLOPs spent; `flop_speedup` elsewhere is relative to the plain
    model."""


class Measured(Part):
    """Wall times on one device."""

    device: str
    """"cpu", or the GPU's name."""
    threads: int
    """Number of compute threads."""
    rows: tuple[LatencyRow, ...]
    """A row per model, mode and operating point."""


class Latency(Result):
    """`outputs/latency/<task>.json`."""

    made_by: ClassVar[str] = "latency"
    schema_version: ClassVar[int] = 3
    task: str
    """The task's name."""
    measured: Measured | None
    """None: `latency.tasks` does not name the task."""
