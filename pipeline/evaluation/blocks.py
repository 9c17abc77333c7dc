"""Work over blocks of rows, on as many threads as the stage is given.

NumPy releases Python's lock inside its loops, so blocks run side by side in one process. Blocks are the same and their
results come back in the same order for any number of threads: what is summed over them is equal bit for bit.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

ROWS = 8192
"""Rows of a block: its working arrays then fit in a core's cache."""

_threads = 1


def set_threads(count: int) -> None:
    """Run blocks on `count` threads from now on in this process; like `torch.set_num_threads`, but no result moves."""
    global _threads
    _threads = count


def over_blocks(work: Callable[[slice], T], rows: int) -> list[T]:
    """What `work` returns for each block of the rows, in order; of several blocks that raise, the first one's error."""
    blocks = [slice(start, start + ROWS) for start in range(0, rows, ROWS)]
    if _threads == 1 or len(blocks) == 1:
        return [work(block) for block in blocks]
    contexts = [copy_context() for _ in blocks]  # NumPy keeps its error state there
    with ThreadPoolExecutor(_threads) as pool:
        return list(pool.map(lambda context, block: context.run(work, block), contexts, blocks))
