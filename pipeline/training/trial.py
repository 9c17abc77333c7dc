"""Text trials: the groups of a plan, and how a worker trains one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.models.names import BackboneSpec
from pipeline.models.recording import device_of, exit_scores, manifest, record
from pipeline.params import Params
from pipeline.storage import DATA
from pipeline.tasks.task import Task
from pipeline.training.methods import METHODS
from pipeline.training.plan import Group, Plan, run_trial

if TYPE_CHECKING:
    from pipeline.training.recipes.base import Start

RUNNER = "pipeline.training.trial:train_text"


def plan(params: Params) -> Plan:
    """The plan of the finetune stage: every task x backbone x method, its grid and its seeds."""
    groups = []
    for task_name in params.tasks:
        about = manifest(task_name)
        for backbone_name in params.backbones:
            if backbone_name not in about["tokens"]:
                raise ArtifactError(
                    f"data/tasks/{task_name}: no tokens of backbone {backbone_name!r}; "
                    f"run `dvc repro prepare@{task_name}`"
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
        "training": _training(params),
        **({"head_bias": "label mean"} if task.kind == "regression" else {}),
    }
    return Group(name + method, settings, name + info.parent if info.parent else None)


def _training(params: Params) -> dict[str, Any]:
    """What of `training` a trial depends on."""
    fields = params.training.model_dump(mode="json", exclude={"compile"})
    return fields | ({"compile": True} if params.training.compile else {})


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

    from pipeline.tasks.text.tokens import TokenStore, bucketed
    from pipeline.training.fit import Fit, run_fit, warmup_linear
    from pipeline.training.methods import load_recipe
    from pipeline.training.recipes.base import Moment

    folder = DATA / settings["task"] / settings["backbone"]["name"]
    train, selection = (TokenStore.open(folder / f"{name}.arrow") for name in ("train", "selection"))
    recipe = load_recipe(settings["method"])
    options, size = settings["training"], settings["batch_size"]
    targets = torch.from_numpy(train.labels.astype(np.float32)).to(device)

    def batches(epoch: int) -> Any:
        generator = np.random.default_rng([settings["seed"], epoch])
        for rows in bucketed(train.lengths, size, generator):
            yield train.batch(rows, device), targets[torch.from_numpy(rows).to(device)]

    torch.manual_seed(settings["seed"])
    start = _start(settings, directory.parent, context, device, float(train.labels.mean()))
    model = recipe.build(start).to(device)
    recipe.prepare(model, batches(0))
    moved = recipe.trainable(model)
    moving = {id(p) for p in moved}
    for p in [*model.parameters(), *(start.parent.parameters() if start.parent else ())]:
        p.requires_grad_(id(p) in moving)

    def evaluate(model: Any) -> dict[str, float]:
        logits, channels = record(model, selection, device)
        scores = exit_scores(logits, selection.labels, settings["metrics"])
        weights = np.asarray(recipe.selection_weights(len(scores)))
        per_exit = {f"score_exit_{layer:02d}": float(s) for layer, s in zip(model.exits, scores, strict=True)}
        own = recipe.selection(
            torch.from_numpy(logits),
            {name: torch.from_numpy(values) for name, values in channels.items()},
            torch.tensor(selection.labels),
        )
        if own is not None:
            return {"selection": own, **per_exit}
        # An exit whose score is not defined (a constant prediction has no correlation) counts as nothing learned.
        return {"selection": float(np.dot(weights, np.nan_to_num(scores))), **per_exit}

    decay = [p for p in moved if p.ndim > 1]
    plain = [p for p in moved if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": options["weight_decay"]}, {"params": plain, "weight_decay": 0.0}]
    kept = recipe.served(model)
    fit = Fit(
        model=model,
        objective=lambda model, inputs, labels, done: recipe.objective(
            model, inputs, labels, Moment(done, start.parent)
        ),
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
        training_mode=recipe.training_mode,
        served=kept,
        micro_batch=options["micro_batch"],
        compiler="inductor" if options.get("compile") else None,
    )
    result = run_fit(fit, directory, report)
    counts: dict[str, Any] = kept.parameter_counts()
    return result | counts | {"layers": kept.backbone.full_layers, "exits": list(kept.exits)}


def _start(
    settings: Mapping[str, Any], root: Path, context: Mapping[str, Any], device: str, label_mean: float
) -> "Start":
    """What the trial starts from: the hub's weights, random ones, and the parent trial's model.

    New regression heads start at the mean label: Adam moves a bias by no more than the learning rate per step, and a
    few hundred steps of fine-tuning do not reach 2.7 from 0. The paper's code starts at 0.
    """
    from pipeline.models.encoders.encoder import build_encoder, encoder_from_description
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.training.recipes.base import Start

    spec = BackboneSpec(**settings["backbone"])
    mirror = Path(context["mirror"]) if context.get("mirror") else None
    parent = None
    if settings.get("parent"):
        parent = load_checkpoint(root / settings["parent"], encoder_from_description).to(device)
    return Start(
        pretrained=lambda: build_encoder(spec, settings["vocabulary"], mirror),
        outputs=settings["outputs"],
        dropout=spec.dropout,
        parent=parent,
        head_bias=label_mean,
    )
