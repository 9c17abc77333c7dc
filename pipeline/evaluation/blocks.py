"""Work over blocks of rows, on several threads.

NumPy releases Python's lock inside its loops, so blocks run side by side in one process. Blocks and the order of their
results do not depend on the number of threads, so sums over them are equal bit for bit.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

ROWS = 8192
"""Rows of a block; its working arrays fit in a core's cache."""

_threads = 1


def set_threads(count: int) -> None:
    """Set the number of threads for blocks in this process; it changes no result."""
    global _threads
    _threads = count


def over_blocks(work: Callable[[slice], T], rows: int) -> list[T]:
    """The results of `work` for each block of rows, in order; the first block's error where several raise."""
    blocks = [slice(start, start + ROWS) for start in range(0, rows, ROWS)]
    if _threads == 1 or len(blocks) == 1:
        return [work(block) for block in blocks]
    contexts = [copy_context() for _ in blocks]  # NumPy keeps its error state there
    with ThreadPoolExecutor(_threads) as pool:
        return list(pool.map(lambda context, block: context.run(work, block), contexts, blocks))
