"""The training of one trial in a worker, for texts and images."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.identity.code import CodeIdentity
from pipeline.identity.versions import library_versions
from pipeline.models.device import device_of, give_back_memory
from pipeline.models.names import BackboneSpec
from pipeline.models.recording import exit_scores, record, refuse_diverged
from pipeline.results import Manifest, TrialResult
from pipeline.storage import file_hash, write_json
from pipeline.tasks.stores import Store, inputs_name, manifest_of, open_store
from pipeline.training.code import keep_code, trial_code
from pipeline.training.plan import RESULT, run_trial

if TYPE_CHECKING:
    from pipeline.models.multi_exit import MultiExit
    from pipeline.training.recipes.base import Recipe, Start

RUNNER = "pipeline.training.trial:train"
DECISION = "decision.json"
"""File in a trial's folder with what its recipe decided before training."""
Settings = Mapping[str, Any]
Report = Callable[[dict[str, float]], None]


def train(settings: Settings, names: Settings, directory: Path, context: Settings, report: Report) -> TrialResult:
    """Train one trial in a worker.

    Args:
        settings: the trial's settings, which hold all inputs of its result.
        names: names of the inputs that the settings identify by content: task, backbone, hub name.
        directory: the trial's folder.
        context: settings that change no result: threads, device, mirror, micro_batch, and gpu_share, the share of a
            GPU that the worker was given (absent: the whole).
        report: called with each epoch's metrics.
    """
    import torch

    from pipeline.models.precision import equal_bits, full_float32, limit_memory

    torch.set_num_threads(context["threads"])
    device = device_of(context["device"])
    full_float32()
    equal_bits(device)
    if device == "cuda":
        limit_memory(context.get("gpu_share", 0.0))
    code = trial_code(settings["modality"], settings["method"])
    try:
        return run_trial(
            settings, directory, lambda folder: _train(settings, names, folder, device, context, report, code)
        )
    finally:
        give_back_memory(device)


def _train(
    settings: Settings,
    names: Settings,
    directory: Path,
    device: str,
    context: Settings,
    report: Report,
    code: CodeIdentity,
) -> TrialResult:
    from pipeline.training.fit import run_fit

    keep_code(directory, names, code, settings["code"])
    manifest = manifest_of(names["task"])
    rows, selection = (open_store(manifest, names["backbone"], split, device) for split in ("train", "selection"))
    start = start_of(settings, names, manifest, directory.parent, context, device, float(rows.labels.mean()))
    micro_batch = context["micro_batch"][settings["modality"]]
    fit = build_fit(settings, start, rows, selection, device, micro_batch, directory / DECISION)
    fitted = run_fit(fit, directory, report)
    kept = fit.served or fit.model
    return TrialResult(
        **fitted,
        **kept.parameter_counts(),
        layers=kept.backbone.full_layers,
        exits=kept.exits,
        weights_sha256=file_hash(directory / "model.safetensors"),
        code=code.hash,
        versions=library_versions(),
    )


def build_fit(
    settings: Settings,
    start: "Start",
    rows: Store,
    selection: Store,
    device: str,
    micro_batch: int | None = None,
    decision: Path | None = None,
) -> Any:
    """The training run that a trial's settings describe.

    Args:
        rows, selection: the stores of training and selection rows.
        decision: file with the recipe's decision before training, written here unless it is there; None: not stored.
    """
    import torch

    from pipeline.models.precision import autocast_type
    from pipeline.training.fit import Fit
    from pipeline.training.methods import load_recipe
    from pipeline.training.optimisation import optimisation
    from pipeline.training.recipes.base import Moment

    recipe = load_recipe(settings["method"], settings.get("regime"))
    options, size = settings["training"], settings["batch_size"]
    steps_per_epoch = -(-len(rows) // size)
    steps = steps_per_epoch * options["epochs"]
    targets = torch.from_numpy(rows.labels.astype(np.float32)).to(device)

    def batches(epoch: int) -> Any:
        generator = np.random.default_rng([settings["seed"], epoch])
        for inputs, index in rows.epoch(size, generator, device, options.get("augment", False)):
            yield inputs, targets[torch.from_numpy(index).to(device)]

    torch.manual_seed(settings["seed"])
    model = recipe.build(start).to(device)
    made = _decision(decision, lambda: recipe.decide(model, batches(0)))
    if made is not None:
        recipe.change(model, made)
    moved = _freeze_others(model, recipe, start)
    costs = exit_costs(model, rows)
    how = optimisation(settings["modality"], moved, settings["learning_rate"], options)
    return Fit(
        model=model,
        objective=lambda model, inputs, labels, done: recipe.objective(
            model, inputs, labels, Moment(done, start.parent, costs, round(done * steps))
        ),
        batches=batches,
        steps_per_epoch=steps_per_epoch,
        evaluate=lambda model: judge(model, recipe, selection, settings["metrics"], device),
        optimizer=how.optimizer,
        schedule=how.schedule,
        epochs=options["epochs"],
        stop_after=how.stop_after,
        seed=settings["seed"],
        clip_norm=how.clip_norm,
        autocast=autocast_type(device, options.get("precision", "auto")),
        training_mode=recipe.training_mode,
        served=recipe.served(model),
        micro_batch=micro_batch,
        compiler="inductor" if options.get("compile") else None,
    )


def _decision(path: Path | None, decide: Callable[[], Any]) -> Any:
    """The decision in the file; else a new one, which is stored there."""
    if path is not None and path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["decision"]
    made = decide()
    if path is not None and made is not None:
        write_json(path, {"decision": made})
    return made


def _freeze_others(model: "MultiExit", recipe: "Recipe", start: "Start") -> list[Any]:
    """Enable gradients for the recipe's parameters only, and return them."""
    moved = recipe.trainable(model)
    moving = {id(p) for p in moved}
    for p in [*model.parameters(), *(start.parent.parameters() if start.parent else ())]:
        p.requires_grad_(id(p) in moving)
    return moved


def exit_costs(model: "MultiExit", rows: Store) -> tuple[float, ...]:
    """FLOPs of leaving at each exit as shares of the last exit's, for a row of mean size."""
    flops, _ = model.backbone.flops(rows.sizes.mean(keepdims=True), model.outputs, model.exits)
    return tuple((flops[0] / flops[0, -1]).tolist())


def judge(
    model: "MultiExit", recipe: "Recipe", selection: Store, metrics: Sequence[str], device: str
) -> dict[str, float]:
    """The score of each exit on selection rows, and "selection": the score that picks epochs and grid points.

    Raises:
        InvalidLogitsError: an answer is not finite.
    """
    import torch

    logits, channels = record(model, selection, device)
    for name, values in {"logits": logits, **channels}.items():
        refuse_diverged(name, values)
    scores = exit_scores(logits, selection.labels, metrics)
    per_exit = {f"score_exit_{layer:02d}": float(s) for layer, s in zip(model.exits, scores, strict=True)}
    selection_score = recipe.selection(
        torch.from_numpy(logits),
        {name: torch.from_numpy(values) for name, values in channels.items()},
        torch.tensor(selection.labels),
    )
    if selection_score is None:
        weights = np.asarray(recipe.selection_weights(exit_costs(model, selection)))
        # An undefined score (a constant prediction has no correlation) counts as 0.
        selection_score = float(np.dot(weights, np.nan_to_num(scores)))
    return {"selection": selection_score, **per_exit}


def start_of(
    settings: Settings,
    names: Settings,
    manifest: Manifest,
    trials: Path,
    context: Settings,
    device: str,
    label_mean: float,
) -> "Start":
    """The start of a trial: pretrained or random weights, and the parent's model.

    The bias of a new regression head starts at the mean label. Adam moves a bias by at most the learning rate per step,
    so a few hundred steps of fine-tuning do not reach 2.7 from 0. The paper's code starts at 0.

    Args:
        trials: parent folder of the trial folders.
    """
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.training.recipes.base import Start

    heads = settings.get("regime", {}).get("heads")
    spec = BackboneSpec(name=names["backbone"], hub=names["hub"], modality=settings["modality"], **settings["backbone"])
    inputs = manifest.inputs[inputs_name(manifest, spec.name)]
    mirror = Path(context["mirror"]) if context.get("mirror") else None

    def pretrained() -> Any:
        if spec.modality == "text":
            from pipeline.models.encoders.encoder import build_encoder

            return build_encoder(spec, inputs.vocabulary, mirror, heads or "shared_pooler")
        from pipeline.models.residual import ResNet

        assert inputs.mean is not None and inputs.std is not None  # noqa: PT018 - images have both
        return ResNet(spec.depth, spec.width, inputs.mean, inputs.std, spec.exits)

    parent = None
    if settings.get("parent"):
        folder = trials / settings["parent"]
        trained = TrialResult.read(folder / RESULT, "run `dvc repro finetune`")
        parent = load_checkpoint(folder, sha256=trained.weights_sha256).to(device)
        if heads is not None:
            parent.backbone.part_poolers(heads)
    return Start(pretrained, settings["outputs"], spec.dropout, parent, label_mean)
