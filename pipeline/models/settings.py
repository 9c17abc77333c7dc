"""The blocks `latency` and `export` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.results.latency import RunsIn
from pipeline.settings import Block, Distinct, Size


class Latency(Block):
    """Wall time of the live engines, on `rows` report rows of each task in `tasks`."""

    tasks: Annotated[list[str], Distinct] = []
    rows: Size = 64
    batch_size: Size | Annotated[list[Size], Distinct, Field(min_length=1)] = 32
    """Rows of a call. One number is timed beside one row at a time; of a list, such as [1, 8, 32], each is timed."""
    threads: Annotated[list[Size], Distinct, Field(min_length=1)] | None = None
    """Numbers of compute threads, such as [1, 2], each timed; at most the machine's cores. None: `runtime.threads`,
    or as many as there are cores."""
    repeats: Size = 3
    engines: Annotated[list[RunsIn], Distinct] = Field(default=["pytorch"], min_length=1)
    """What the models run in, timed in turn on the same rows. onnx-float32 and onnx-int8 are the models of `export`, at
    thresholds of their own, on the CPU: `export.tasks` and `export.precisions` must have them. pytorch-bf16 has weights
    and activations in bf16, for a GPU or a processor that has it, and thresholds of its own, chosen here as in
    evaluate."""
    node: str | None = None
    """Kind of node to time on, alone: on the Ray cluster that is joined, a kind of GPU as Ray names it (L4, A100), a
    custom resource, or the value of any label, such as a worker group's name. None: this machine."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that are timed."""
        given = self.batch_size
        return (*dict.fromkeys((1, given)),) if isinstance(given, int) else tuple(given)


class Export(Block):
    """The models with early exits of each task in `tasks`, of the first seed, as ONNX graphs."""

    tasks: Annotated[list[str], Distinct] = []
    precisions: Annotated[list[Literal["float32", "int8"]], Distinct] = Field(default=["float32"], min_length=1)
    """Each is recorded, has thresholds of its own and its scores. int8 rounds convolutions with scales from selection
    rows."""
