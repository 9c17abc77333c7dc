"""Array functions of replay and live inference, for a last axis of a few classes.

NumPy reduces such an axis with a loop per row, 16 to 37 ns each. Where each class is contiguous in memory, the same
call costs 1 ns a row. So replay stores a block of rows by columns; shapes, and so the criteria, stay the same.
"""

from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from array_api_compat import array_namespace

FEW = 8
"""NumPy adds fewer than 8 numbers one by one, in any memory order. From 8 on it forms eight partial sums of neighbours
in memory, so that the memory order changes the last bit, and live inference would differ from replay."""


MANY = 256
"""Number of rows from which calls per column are faster than a loop per row; live batches are smaller."""


def namespace_of(array: Any) -> Any:
    """`array_namespace` with a shortcut for NumPy: the live engine calls it for a row or two after every layer."""
    return numpy_namespace if type(array) is np.ndarray else array_namespace(array)


def by_column(values: np.ndarray) -> np.ndarray:
    """The same values, (n, exits) or (n, exits, k), rows adjacent in memory; unchanged for k >= FEW."""
    return np.asfortranarray(values) if values.ndim == 2 or values.shape[2] < FEW else values


def largest_class(logits: Any) -> Any:
    """Index of each row's largest class, the lower index among equals: (..., classes) to (...), whole numbers.

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
