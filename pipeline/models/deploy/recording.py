"""Traces of an exported model through its own graphs: thresholds are chosen, and scores reported, on what will run."""

import numpy as np

from pipeline.models.deploy.segments import Segments, arrays_of
from pipeline.tasks.stores import Store


def record(segments: Segments, store: Store) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Record every exit for every row of a store, in the store's order and batches.

    Returns:
        Logits, (n, exits, outputs) float32, and each channel, (n, exits) float32.
    """
    logits = np.empty((len(store), len(segments.exits), segments.outputs), dtype=np.float32)
    channels = {name: np.empty(logits.shape[:2], dtype=np.float32) for name in segments.channels}
    for rows in store.in_order():
        logits[rows], values_by_channel = segments.record(arrays_of(store.batch(rows, "cpu")))
        for name, values in values_by_channel.items():
            channels[name][rows] = values
    return logits, channels
