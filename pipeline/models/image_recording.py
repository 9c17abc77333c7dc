"""Recording: one pass of a trained residual network over a split, every exit kept. The image twin of recording.py."""

from pathlib import Path
from typing import Any

import numpy as np

EVALUATION_BATCH = 128


def record(model: Any, store: Any) -> np.ndarray:
    """Logits of every exit for every row of an ImageStore, (n, exits, classes) float32, in the store's order."""
    import torch

    model.eval()
    out = np.empty((len(store), len(model.exits), model.outputs), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(store), EVALUATION_BATCH):
            rows = np.arange(start, min(start + EVALUATION_BATCH, len(store)))
            out[rows] = model(store.batch(rows)[0]).float().cpu().numpy()
    return out


def exit_accuracies(model: Any, store: Any) -> np.ndarray:
    """Accuracy of each exit taken alone, (exits,)."""
    from pipeline.evaluation.metrics import accuracy

    predictions = np.argmax(record(model, store), axis=2)
    return accuracy(predictions.T, store.labels.cpu().numpy())


def record_image_trace(checkpoint: Path, dataset: str, split: str, device: str) -> Any:
    """Record one checkpoint over one split of a prepared data set as a Trace, with its cost and where it comes from."""
    from pipeline.evaluation.trace import Trace
    from pipeline.models.flops import resnet_flops
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.models.residual import resnet_from_description
    from pipeline.storage import file_hash, read_json
    from pipeline.tasks.image.batches import ImageStore
    from pipeline.tasks.image.prepare import IMAGES

    model = load_checkpoint(checkpoint, resnet_from_description).to(device)
    about = read_json(IMAGES / dataset / "manifest.json", 1, "run `dvc repro -f cifar`")
    store = ImageStore.open(IMAGES / dataset, split, device)
    exits = np.asarray(model.exits, dtype=np.float64)
    flops, full = resnet_flops(model.backbone.shape(model.outputs), len(store), exits)
    return Trace(
        kind="classification",
        logits=record(model, store),
        labels=store.labels.cpu().numpy().astype(np.float64),
        row_ids=store.row_ids.astype(np.int64),
        layers=exits,
        flops=flops,
        full_flops=full,
        label_names=tuple(about["label_names"]),
        provenance={
            "dataset": dataset,
            "split": split,
            "trial": checkpoint.name,
            "weights_sha256": file_hash(checkpoint / "model.safetensors"),
            "data_sha256": about["splits"][split]["sha256"],
        },
    )
