"""Image trials: the groups of the cifar stage's plan, and how a worker trains one. The image twin of text_trials.py."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.models.image_recording import exit_accuracies
from pipeline.models.recording import device_of
from pipeline.params import Cifar
from pipeline.tasks.image.prepare import IMAGES
from pipeline.tasks.image.sources import IMAGE_SETS
from pipeline.training.plan import Group, Plan, Results, Trial, run_trial
from pipeline.training.recipes.vision import VISION_METHODS

RUNNER = "pipeline.training.image_trial:train_image"

MOMENTUM = 0.9
MILESTONES = (0.35, 0.60, 0.85)
"""Shares of training after which the learning rate falls to a tenth."""


def plan(cifar: Cifar, manifests: Mapping[Any, Mapping[str, Any]]) -> Plan:
    """The plan of the cifar stage: every data set x method, its grid and its seeds.

    Args:
        manifests: data set to what `prepare_images` returned.
    """
    groups = tuple(_group(cifar, name, method, manifests[name]) for name in cifar.datasets for method in cifar.methods)
    return Plan(groups, tuple(cifar.grid.batch_size), tuple(cifar.grid.learning_rate), tuple(cifar.seeds))


def _group(cifar: Cifar, dataset: str, method: str, manifest: Mapping[str, Any]) -> Group:
    info, images = VISION_METHODS[method], IMAGE_SETS[dataset]
    settings = {
        "dataset": dataset,
        "kind": "classification",
        "outputs": images.classes,
        "mean": list(images.mean),
        "std": list(images.std),
        "data": manifest["hash"],
        "backbone": {"name": f"resnet{cifar.depth}"},
        "depth": cifar.depth,
        "width": cifar.width,
        # A plain model has its one exit wherever the others have theirs: a change of placement re-runs none.
        "exits": cifar.exits if info.multi_exit else "last",
        "method": method,
        "method_version": info.version,
        "training": {"epochs": cifar.epochs, "weight_decay": cifar.weight_decay, "augment": cifar.augment},
    }
    return Group(f"{dataset}/resnet{cifar.depth}/{method}", settings)


def steps(done: float) -> float:
    """Factor on the learning rate: a tenth less after 35%, 60% and 85% of training.

    Shallow-Deep's setting (epochs 35, 60 and 85 of 100, from 0.1), which BERT Loses Patience says it follows; He et al.
    step at 50% and 75%.
    """
    return float(0.1 ** sum(done > share for share in MILESTONES))


def train_image(
    settings: Mapping[str, Any],
    directory: Path,
    context: Mapping[str, Any],
    report: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    """Train one trial in a worker.

    SGD with momentum 0.9 and weight decay on every parameter, as He et al. (2016, 4.2) and Shallow-Deep's code have
    it; batch size 128 and learning rate 0.1 are theirs and the paper's (Appendix A).

    Args:
        settings: of the trial; all that changes the result.
        context: threads, device: where and how.
        report: called with each epoch's metrics.

    Returns:
        The trial's result: best epoch, selection score, per-exit accuracies, times, parameter counts.
    """
    import torch

    torch.set_num_threads(context["threads"])
    device = device_of(context["device"])

    def train(folder: Path) -> dict[str, Any]:
        return _train(settings, folder, device, report)

    try:
        return run_trial(settings, directory, train)
    finally:
        if device == "cuda":  # the worker process is reused: leave the next trial the whole share
            torch.cuda.empty_cache()


def _train(
    settings: Mapping[str, Any], directory: Path, device: str, report: Callable[[dict[str, float]], None]
) -> dict[str, Any]:
    from pipeline.tasks.image.batches import ImageStore
    from pipeline.training.fit import run_fit

    folder = IMAGES / settings["dataset"]
    train, selection = (ImageStore.open(folder, split, device) for split in ("train", "selection"))
    fit = build_fit(settings, train, selection, device)
    result = run_fit(fit, directory, report)
    counts: dict[str, Any] = fit.model.parameter_counts()
    return result | counts | {"layers": fit.model.backbone.layers, "exits": list(fit.model.exits)}


def build_fit(settings: Mapping[str, Any], train: Any, selection: Any, device: str) -> Any:
    """The training run that a trial's settings describe, over two ImageStores."""
    import torch

    from pipeline.models.flops import resnet_flops
    from pipeline.tasks.image.batches import batches
    from pipeline.training.fit import Fit
    from pipeline.training.recipes.vision import load_vision_recipe

    recipe = load_vision_recipe(settings["method"])
    torch.manual_seed(settings["seed"])
    model = build_model(settings).to(device)
    flops, _ = resnet_flops(model.backbone.shape(model.outputs), 1, np.array(model.exits))
    costs = (flops[0] / flops[0, -1]).tolist()
    weights = np.asarray(recipe.selection_weights(costs))
    options, size, seed = settings["training"], settings["batch_size"], settings["seed"]

    def evaluate(model: Any) -> dict[str, float]:
        scores = exit_accuracies(model, selection)
        per_exit = {f"score_exit_{layer:02d}": float(s) for layer, s in zip(model.exits, scores, strict=True)}
        return {"selection": float(np.dot(weights, scores)), **per_exit}

    return Fit(
        model=model,
        objective=lambda model, inputs, labels, done: recipe.loss(model(inputs).float(), labels, costs, done),
        batches=lambda epoch: batches(train, size, np.random.default_rng([seed, epoch]), options["augment"]),
        steps_per_epoch=-(-len(train) // size),
        evaluate=evaluate,
        optimizer=torch.optim.SGD(
            model.parameters(),
            lr=settings["learning_rate"],
            momentum=MOMENTUM,
            weight_decay=options["weight_decay"],
            fused=True,
        ),
        schedule=steps,
        epochs=options["epochs"],
        stop_after=options["epochs"],  # the schedule says when training ends; the best epoch is kept all the same
        seed=seed,
        autocast=device == "cuda",
    )


def build_model(settings: Mapping[str, Any]) -> Any:
    """The network before training, from random weights."""
    from pipeline.models.flops import exit_layers
    from pipeline.models.multi_exit import MultiExit
    from pipeline.models.residual import ResNet

    backbone = ResNet(settings["depth"], settings["width"], settings["mean"], settings["std"])
    if settings["exits"] == "last":
        exits: tuple[int, ...] = (backbone.layers,)
    else:
        exits = exit_layers(backbone.shape(settings["outputs"]), settings["exits"])
    return MultiExit(backbone, exits, settings["outputs"])


def describe(group: Group, plan: Plan, results: Results) -> dict[str, Any]:
    """What a group's grid found: the chosen point, every point's selection score, failed trials, parameter counts."""
    best = plan.best(group, results)
    assert best is not None  # run_plan refuses a group without one
    first = results[best.key]
    assert first is not None
    of_group = [trial for trial in plan.known(results) if trial.group == group.name]
    return {
        "group": group.name,
        "dataset": group.settings["dataset"],
        "backbone": group.settings["backbone"]["name"],
        "method": group.settings["method"],
        "multi_exit": VISION_METHODS[group.settings["method"]].multi_exit,
        "batch_size": best.settings["batch_size"],
        "learning_rate": best.settings["learning_rate"],
        "grid": [_point(t, results) for t in of_group if t.settings["seed"] == best.settings["seed"]],
        "failed": [{"seed": t.settings["seed"], "key": t.key} for t in of_group if results.get(t.key) is None],
        **{name: first[name] for name in ("layers", "exits", "parameters", "early_exit_parameters")},
    }


def _point(trial: Trial, results: Results) -> dict[str, Any]:
    result = results.get(trial.key)
    point: dict[str, Any] = {name: trial.settings[name] for name in ("batch_size", "learning_rate")}
    return {**point, "selection": None if result is None else round(result["selection"], 6), "key": trial.key}
