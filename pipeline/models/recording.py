"""Recording: one pass of a trained text model over a split, every exit kept."""

from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.storage import DATA, RUNS, file_hash, read_json
from pipeline.tasks.task import Task

EVALUATION_BATCH = 64


def manifest(task: str) -> dict[str, Any]:
    """The task's manifest, as prepare wrote it."""
    return read_json(DATA / task / "manifest.json", 1, f"run `dvc repro prepare@{task}`")


def device_of(wanted: str) -> str:
    """ "auto" is the GPU where there is one."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DataError("runtime.device: 'cuda' and no GPU is visible; set it to auto or cpu")
    return wanted if wanted != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def record(model: Any, store: Any, device: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What every exit says of every row of a TokenStore, in the store's order.

    Returns:
        Logits, (n, exits, outputs) float32, and each of the model's channels, (n, exits) float32.
    """
    import torch

    from pipeline.tasks.text.tokens import by_length

    model.eval()
    logits = np.empty((len(store), len(model.exits), model.outputs), dtype=np.float32)
    channels = {name: np.empty(logits.shape[:2], dtype=np.float32) for name in model.channels}
    with torch.inference_mode():
        for rows in by_length(store.lengths, EVALUATION_BATCH):
            answers, said = model.record(store.batch(rows, device), channels)
            logits[rows] = answers.float().cpu().numpy()
            for name, values in said.items():
                channels[name][rows] = values.float().cpu().numpy()
    return logits, channels


def exit_scores(logits: np.ndarray, labels: np.ndarray, metrics: list[str]) -> np.ndarray:
    """Score of each exit taken alone, (n, exits, outputs), (n,) to (exits,)."""
    from pipeline.evaluation.metrics import score

    predictions = logits[:, :, 0].astype(np.float64) if logits.shape[2] == 1 else np.argmax(logits, axis=2)
    return score(tuple(metrics), predictions.T, labels)


def record_trace(task: Task, backbone: str, key: str, split: str, device: str) -> Any:
    """Record one checkpoint over one split as a Trace, with its cost and where it comes from."""
    from pipeline.evaluation.trace import Trace
    from pipeline.models.encoders.encoder import encoder_from_description
    from pipeline.models.flops import encoder_flops
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.tasks.text.tokens import TokenStore

    model = load_checkpoint(RUNS / key, encoder_from_description).to(device)
    path = DATA / task.name / backbone / f"{split}.arrow"
    store = TokenStore.open(path)
    exits = np.asarray(model.exits, dtype=np.float64)
    flops, full = encoder_flops(model.backbone.shape(task.outputs), store.lengths, exits)
    logits, channels = record(model, store, device)
    return Trace(
        kind=task.kind,
        logits=logits,
        channels=channels,
        labels=store.labels.astype(np.float64),
        row_ids=store.row_ids.astype(np.int64),
        layers=exits,
        flops=flops,
        full_flops=full,
        full_layers=float(model.backbone.full_layers),
        label_names=task.label_names,
        provenance={
            "task": task.name,
            "split": split,
            "trial": key,
            "weights_sha256": file_hash(RUNS / key / "model.safetensors"),
            "data_sha256": file_hash(path),
        },
    )
