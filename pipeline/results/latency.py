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
    refuse_other_names,
    refuse_repeats,
)
from pipeline.results.point import OperatingPoint

RunsIn = Literal["pytorch", "pytorch-bf16", "onnx-float32", "onnx-int8"]
"""What a model runs in, with its precision, as params.yaml names it; pytorch alone is float32."""
Engine = Literal["pytorch", "onnx"]
Precision = Literal["float32", "int8", "bf16"]


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
    engine: Engine
    """What ran: the live engine in PyTorch, or the exported graphs in ONNX Runtime, on the CPU."""
    precision: Precision
    """Arithmetic of the layers."""
    score: Score | None
    """Score of this model at this point in this engine, on all rows of the report split."""
    mode: Text
    """"batch 1", or "batch 32"."""
    threads: Natural
    """Number of compute threads."""
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
        if (self.engine, self.precision) in (("pytorch", "int8"), ("onnx", "bf16")):
            raise ValueError(f"precision: {self.engine} has no {self.precision}")

    @property
    def rows_per_second(self) -> float:
        """Examples answered in a second, in the median repeat."""
        return 1000 / self.ms_per_example if self.ms_per_example else float("inf")


class Reached(Part):
    """A full pass beside the matrix products that it consists of."""

    engine: Engine
    """What ran, as in a row."""
    precision: Precision
    """Arithmetic of the layers."""
    share: Amount
    """Share of the machine's matrix rate: the time that the products alone would take at it / the time of a call. Near
    1, nothing is left to gain but by another arithmetic."""


class Roof(Part):
    """The machine's matrix rate at the shapes of one model's layers, in one mode, out of the same repeats."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    mode: Text
    """As in a row."""
    threads: Natural
    """Number of compute threads."""
    shapes: tuple[tuple[Natural, Natural, Natural, Natural], ...]
    """Products of the call with the median number of rows: rows, inner width, outer width, and how many of them. Those
    under a hundredth of the operations are left out; a convolution counts as the product that it comes to."""
    rates: dict[Precision, Ratio]
    """By precision, 1e9 operations a second (a multiply-add is two) of these products alone, in the fastest of
    PyTorch's layouts of a weight and ONNX Runtime's products (int8: MatMulInteger)."""
    reached: tuple[Reached, ...]
    """The full pass of each engine in that call."""


class Memory(Part):
    """Memory of a fresh process that answers one batch with one model in one engine."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    engine: Engine
    """What ran, as in a row."""
    precision: Precision
    """Arithmetic of the layers."""
    batch: Natural
    """Rows of the batch, the largest that is timed; it is answered through all layers."""
    libraries_mib: Amount
    """Resident before the model is read, with the engine's libraries loaded. On a GPU 0."""
    peak_mib: Amount
    """Most that was resident, libraries and model included, in MiB. On a GPU, what PyTorch allocated there at most."""


class Measured(Part):
    """Wall times on one device."""

    device: Text
    """"cpu", or the GPU's name."""
    machine: Text
    """The machine's processor, with its number of CPUs."""
    node: Text | None
    """Kind of node that was asked for; None: the machine of the stage."""
    rows: tuple[LatencyRow, ...]
    """A row per model, mode, number of threads, engine and operating point."""
    roofs: tuple[Roof, ...]
    """An entry per model, mode and number of threads."""
    memory: tuple[Memory, ...]
    """An entry per model and engine; none on systems without /proc."""

    @property
    def threads(self) -> tuple[int, ...]:
        """The numbers of compute threads."""
        return tuple(dict.fromkeys(row.threads for row in self.rows))

    def check(self) -> None:
        refuse_repeats("rows", ((*_setting(row), row.engine, row.precision, row.point.name) for row in self.rows))
        if len({len(row.repeats_ms) for row in self.rows}) > 1:
            raise ValueError("rows: repeats_ms are of several lengths")
        refuse_repeats("roofs", map(_setting, self.roofs))
        refuse_other_names("roofs", map(_setting, self.roofs), map(_setting, self.rows))
        refuse_repeats("memory", ((one.backbone, one.method, one.engine, one.precision) for one in self.memory))


def _setting(entry: LatencyRow | Roof) -> tuple[str, str, str, int]:
    return entry.backbone, entry.method, entry.mode, entry.threads


class Latency(Result):
    """`outputs/latency/<task>.json`."""

    made_by: ClassVar[str] = "latency"
    schema_version: ClassVar[int] = 6
    """Version 5 had one number of threads, no matrix rates and no memory."""
    task: Name
    """The task's name."""
    measured: Measured | None
    """None: `latency.tasks` does not name the task."""
