"""Array work that replay and live share, for a last axis of a few classes.

NumPy reduces such an axis with a loop per row, 16 to 37 ns each; where every class lies contiguous in memory the same
call costs 1 ns a row. So replay lays a block of rows out by columns, shapes unchanged, and no criterion knows.
"""

from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from array_api_compat import array_namespace

FEW = 8
"""NumPy adds fewer numbers than this one after the other in any memory order. From here on it adds neighbours in memory
as eight partial sums, so that the order of the memory decides the last bit and live would not equal replay."""


MANY = 256
"""Rows from which a few calls over columns beat one call with a loop per row; the live engine's batches are smaller."""


def namespace_of(array: Any) -> Any:
    """`array_namespace` with NumPy first: the live engine steps on a row or two, after every layer."""
    return numpy_namespace if type(array) is np.ndarray else array_namespace(array)


def by_column(values: np.ndarray) -> np.ndarray:
    """The same values, (n, exits) or (n, exits, k), rows adjacent in memory; with many k as they are (see FEW)."""
    return np.asfortranarray(values) if values.ndim == 2 or values.shape[2] < FEW else values


def largest_class(logits: Any) -> Any:
    """Index of the largest of each row's classes, the lower one of equals: (..., classes) to (...), whole numbers.

    Args:
        logits: numpy.ndarray or torch.Tensor without NaN.
    """
    xp = namespace_of(logits)
    classes = logits.shape[-1]
    if classes >= FEW or len(logits) < MANY:
        return xp.argmax(logits, axis=-1)
    best = logits[..., 0]
    index = xp.zeros_like(best, dtype=xp.int8)
    for c in range(1, classes):
        index = xp.maximum(index, xp.astype(logits[..., c] > best, xp.int8) * c)
        best = xp.maximum(best, logits[..., c])
    return index
