"""Text trials: the groups of a plan, how a worker trains one, and how its model is recorded."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backbones import BackboneSpec
from pipeline.errors import ArtifactError, DataError
from pipeline.files import file_hash, read_json
from pipeline.methods import METHODS
from pipeline.params import Params
from pipeline.tasks import Task
from pipeline.trials import Group, Plan, run_trial

DATA = Path("data")
RUNS = Path("runs/finetune")
RUNNER = "pipeline.text_trials:train_text"
EVALUATION_BATCH = 64


def manifest(task: str) -> dict[str, Any]:
    """The task's manifest, as prepare wrote it."""
    return read_json(DATA / task / "manifest.json", 1, f"run `dvc repro prepare@{task}`")


def plan(params: Params) -> Plan:
    """The plan of the finetune stage: every task x backbone x method, its grid and its seeds."""
    groups = []
    for task_name in params.tasks:
        about = manifest(task_name)
        for backbone_name in params.backbones:
            if backbone_name not in about["tokens"]:
                raise ArtifactError(
                    f"data/{task_name}: no tokens of backbone {backbone_name!r}; run `dvc repro prepare@{task_name}`"
                )
            for method in params.methods:
                groups.append(_group(params, params.task(task_name), params.backbone(backbone_name), method, about))
    return Plan(tuple(groups), tuple(params.grid.batch_size), tuple(params.grid.learning_rate), tuple(params.seeds))


def _group(params: Params, task: Task, backbone: BackboneSpec, method: str, about: Mapping[str, Any]) -> Group:
    info = METHODS[method]
    name = f"{task.name}/{backbone.name}/"
    settings = {
        "task": task.name,
        "kind": task.kind,
        "outputs": task.outputs,
        "metrics": list(task.metrics),
        "data": about["tokens"][backbone.name]["hash"],
        "vocabulary": about["tokens"][backbone.name]["vocabulary"],
        "backbone": {key: value for key, value in backbone.__dict__.items() if key != "about"},
        "method": method,
        "method_version": info.version,
        "training": params.training.model_dump(mode="json"),
    }
    return Group(name + method, settings, name + info.parent if info.parent else None)


def device_of(wanted: str) -> str:
    """"auto" is the GPU where there is one."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise DataError("runtime.device: 'cuda' and no GPU is visible; set it to auto or cpu")
    return wanted if wanted != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def train_text(
    settings: Mapping[str, Any],
    directory: Path,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    """Train one trial in a worker.

    Args:
        settings: of the trial; all that changes the result.
        context: threads, device, mirror: where and how.
        report: called with each epoch's metrics.

    Returns:
        The trial's result: best epoch, selection score, per-exit scores, times, parameter counts.
    """
    import torch

    torch.set_num_threads(context["threads"])
    device = device_of(context["device"])

    def train(folder: Path) -> dict[str, Any]:
        return _train(settings, folder, device, context, report)

    try:
        return run_trial(settings, directory, train)
    finally:
        if device == "cuda":  # the worker process is reused: leave the next trial the whole share
            torch.cuda.empty_cache()


def _train(
    settings: Mapping[str, Any],
    directory: Path,
    device: str,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    import torch

    from pipeline.data.tokens import TokenStore, bucketed
    from pipeline.methods import load_recipe
    from pipeline.train import Fit, run_fit, warmup_linear

    folder = DATA / settings["task"] / settings["backbone"]["name"]
    train, selection = (TokenStore.open(folder / f"{name}.arrow") for name in ("train", "selection"))
    recipe = load_recipe(settings["method"])
    torch.manual_seed(settings["seed"])
    model = _build(settings, recipe, directory.parent, context).to(device)
    moved = recipe.trainable(model)
    moving = {id(p) for p in moved}
    for p in model.parameters():
        p.requires_grad_(id(p) in moving)
    options = settings["training"]
    size = settings["batch_size"]
    targets = torch.from_numpy(train.labels.astype(np.float32)).to(device)

    def batches(epoch: int) -> Any:
        generator = np.random.default_rng([settings["seed"], epoch])
        for rows in bucketed(train.lengths, size, generator):
            yield train.batch(rows, device), targets[torch.from_numpy(rows).to(device)]

    def evaluate(model: Any) -> dict[str, float]:
        scores = exit_scores(model, selection, settings["metrics"], device)
        weights = np.asarray(recipe.selection_weights(len(scores)))
        per_exit = {f"score_exit_{layer:02d}": s for layer, s in zip(model.exits, scores, strict=True)}
        # An exit whose score is not defined (a constant prediction has no correlation) counts as nothing learned.
        return {"selection": float(np.dot(weights, np.nan_to_num(scores))), **per_exit}

    decay = [p for p in moved if p.ndim > 1]
    plain = [p for p in moved if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": options["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    fit = Fit(
        model=model,
        loss=recipe.loss,
        batches=batches,
        steps_per_epoch=-(-len(train) // size),
        evaluate=evaluate,
        optimizer=torch.optim.AdamW([g for g in groups if g["params"]], lr=settings["learning_rate"], fused=True),
        schedule=warmup_linear(options["warmup"]),
        epochs=options["epochs"],
        stop_after=options["stop_after"],
        seed=settings["seed"],
        clip_norm=options["clip_norm"],
        autocast=device == "cuda",
        trained=recipe.training_mode,
    )
    result = run_fit(fit, directory, report)
    return result | model.parameter_counts() | {"layers": model.backbone.layers, "exits": list(model.exits)}


def _build(settings: Mapping[str, Any], recipe: Any, root: Path, context: Mapping[str, Any]) -> Any:
    """The model before training, from the hub's weights, random ones, or the parent trial's."""
    from pipeline.backbones.encoder import build_encoder, encoder_from_description
    from pipeline.multi_exit import load_checkpoint

    spec = BackboneSpec(**settings["backbone"])
    parent = None
    if settings.get("parent"):
        parent = load_checkpoint(root / settings["parent"], encoder_from_description)
        encoder: Any = parent.backbone
    else:
        mirror = Path(context["mirror"]) if context.get("mirror") else None
        encoder = build_encoder(spec, settings["vocabulary"], mirror)
    return recipe.build(encoder, settings["outputs"], spec.dropout, parent)


def record(model: Any, store: Any, device: str) -> np.ndarray:
    """Logits of every exit for every row of a TokenStore, (n, exits, outputs) float32, in the store's order."""
    import torch

    from pipeline.data.tokens import by_length

    model.eval()
    out = np.empty((len(store), len(model.exits), model.outputs), dtype=np.float32)
    with torch.inference_mode():
        for rows in by_length(store.lengths, EVALUATION_BATCH):
            out[rows] = model(store.batch(rows, device)).float().cpu().numpy()
    return out


def exit_scores(model: Any, store: Any, metrics: list[str], device: str) -> np.ndarray:
    """Score of each exit taken alone, (exits,)."""
    from pipeline.metrics import score

    logits = record(model, store, device)
    if logits.shape[2] == 1:
        predictions = logits[:, :, 0].astype(np.float64)
    else:
        predictions = np.argmax(logits, axis=2)
    return score(tuple(metrics), predictions.T, store.labels)


def record_trace(task: Task, backbone: str, key: str, split: str, device: str) -> Any:
    """Record one checkpoint over one split as a Trace, with its cost and where it comes from."""
    from pipeline.backbones.encoder import encoder_from_description
    from pipeline.cost import encoder_flops
    from pipeline.data.tokens import TokenStore
    from pipeline.multi_exit import load_checkpoint
    from pipeline.traces import Trace

    model = load_checkpoint(RUNS / key, encoder_from_description).to(device)
    path = DATA / task.name / backbone / f"{split}.arrow"
    store = TokenStore.open(path)
    exits = np.asarray(model.exits, dtype=np.float64)
    flops, full = encoder_flops(model.backbone.shape(task.outputs), store.lengths, exits)
    return Trace(
        kind=task.kind,
        logits=record(model, store, device),
        labels=store.labels.astype(np.float64),
        row_ids=store.row_ids.astype(np.int64),
        layers=exits,
        flops=flops,
        full_flops=full,
        label_names=task.label_names,
        provenance={
            "task": task.name,
            "split": split,
            "trial": key,
            "weights_sha256": file_hash(RUNS / key / "model.safetensors"),
            "data_sha256": file_hash(path),
        },
    )
