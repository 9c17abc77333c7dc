"""The block `latency` of params.yaml."""

from typing import Annotated

from pipeline.settings import Block, Distinct, Size


class Latency(Block):
    """Wall time of the live engine, on `rows` report rows of each task in `tasks`."""

    tasks: Annotated[list[str], Distinct] = []
    rows: Size = 64
    batch_size: Size = 32
    repeats: Size = 3
