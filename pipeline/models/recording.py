"""Recording: one pass of a trained model over a split that keeps every exit's answers, for texts and images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InvalidLogitsError
from pipeline.evaluation.metrics import score
from pipeline.results import Manifest
from pipeline.storage import file_hash
from pipeline.tasks.stores import Store, inputs_hash, open_store

if TYPE_CHECKING:
    from pipeline.evaluation.trace import Trace
    from pipeline.models.multi_exit import MultiExit


def record(model: "MultiExit", store: Store, device: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Record every exit for every row of a store, in the store's order.

    Returns:
        Logits, (n, exits, outputs) float32, and each of the model's channels, (n, exits) float32.
    """
    import torch

    model.eval()
    logits = np.empty((len(store), len(model.exits), model.outputs), dtype=np.float32)
    channels = {name: np.empty(logits.shape[:2], dtype=np.float32) for name in model.channels}
    with torch.inference_mode():
        for rows in store.in_order():
            answers, values_by_channel = model.record(store.batch(rows, device), channels)
            logits[rows] = answers.float().cpu().numpy()
            for name, values in values_by_channel.items():
                channels[name][rows] = values.float().cpu().numpy()
    return logits, channels


def exit_scores(logits: np.ndarray, labels: np.ndarray, metrics: Sequence[str]) -> np.ndarray:
    """Score of each exit taken alone, finite (n, exits, outputs), (n,) to (exits,)."""
    predictions = logits[:, :, 0].astype(np.float64) if logits.shape[2] == 1 else np.argmax(logits, axis=2)
    return score(tuple(metrics), predictions.T, labels)


def refuse_diverged(name: str, values: np.ndarray) -> None:
    """Raise InvalidLogitsError where one of `values`, (n, ...), is not finite; NaN would count as class 0."""
    bad = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum())
    if bad:
        raise InvalidLogitsError(
            f"{name} of {bad} of {len(values)} selection rows are not finite, the model diverged; "
            "lower the learning rate"
        )


def record_traces(
    checkpoint: Path, manifest: Manifest, backbone: str, splits: Sequence[str], device: str
) -> "Iterator[Trace]":
    """Record one checkpoint over prepared splits in full float32, with costs and provenance.

    Args:
        checkpoint: the model's folder, named by its trial's key; it is loaded once.
        backbone: name of the backbone, which selects the tokens to read.

    Raises:
        ArtifactError: checkpoint or split is missing or cut short.
    """
    from pipeline.evaluation.trace import Trace
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.models.packed import ready
    from pipeline.models.precision import equal_bits, full_float32

    full_float32()
    equal_bits(device)
    model = ready(load_checkpoint(checkpoint), device)
    weights = file_hash(checkpoint / "model.safetensors")
    for split in splits:
        store = open_store(manifest, backbone, split, device)
        flops, full = model.backbone.flops(store.sizes, model.outputs, model.exits)
        last, _ = model.backbone.flops(store.sizes, model.outputs, model.exits[-1:])
        logits, channels = record(model, store, device)
        yield Trace(
            kind=manifest.kind,
            logits=logits,
            channels=channels,
            labels=store.labels.astype(np.float64),
            row_ids=store.row_ids.astype(np.int64),
            layers=np.asarray(model.exits, dtype=np.float64),
            flops=flops,
            full_flops=full,
            full_layers=float(model.backbone.full_layers),
            last_flops=last[:, 0],
            label_names=manifest.label_names,
            provenance={
                "task": manifest.task,
                "split": split,
                "trial": checkpoint.name,
                "weights_sha256": weights,
                "data_sha256": inputs_hash(manifest, backbone, split),
            },
        )
