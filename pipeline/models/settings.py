"""The block `latency` of params.yaml."""

from pipeline.settings import Block, PositiveInt


class Latency(Block):
    """Wall time of the live engine, on `rows` report rows of each task in `tasks`."""

    tasks: list[str] = []
    rows: PositiveInt = 64
    batch_size: PositiveInt = 32
    repeats: PositiveInt = 3
