"""Models that a test made itself, named as those that finetune selected for a task."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.layout import HERE
from pipeline.params import load_params
from pipeline.results import GridPoint, ModelGroup, Selected, SelectedTrial
from pipeline.storage import file_hash
from tests.workspace import Workspace


def select(task: str, backbone: str, models: dict[str, dict[int, str]]) -> Selected:
    """Write the selection of a task.

    Args:
        models: by method, the key of each seed's trial; one whose model lies in `HERE.model` has its weights' hash.
    """
    groups = tuple(group_of(task, backbone, method, keys) for method, keys in models.items())
    selected = Selected(task=task, modality="text", protocol="holdout", groups=groups)
    selected.write(HERE.selected(task))
    return selected


def save_model(model: Any, task: str, key: str) -> None:
    """Put a model where the selected ones lie."""
    from pipeline.models.multi_exit import save_checkpoint

    save_checkpoint(model, HERE.model(task, key))


def unsettle(model: Any, tokenizer: Any, texts: Sequence[str]) -> None:
    """Give a model random weights; each exit's bias is set so that it calls half of the texts one class and half the
    other."""
    import torch

    from pipeline.tasks.text.tokens import collate

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
        encoded = tokenizer.encode_batch(list(texts))
        logits = model(collate([e.ids for e in encoded], [e.type_ids for e in encoded], "cpu"))
        for head, middle in zip(model.heads, (logits[:, :, 1] - logits[:, :, 0]).quantile(0.5, dim=0), strict=True):
            head.bias[0] += middle


def untrained_models(workspace: Workspace, task: str) -> None:
    """Prepare a task, select two models of its texts that nobody trained, and run the real stages up to evaluate."""
    import torch

    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit

    assert workspace.stage("prepare", task).code == 0
    torch.manual_seed(3)
    encoder = build_encoder(load_params().backbone("demo-albert"), 400)
    for key, exits in (("plain", [12]), ("many", range(1, 13))):
        model = MultiExit(encoder, exits, 2)
        with torch.no_grad():
            for head in model.heads:
                head.weight.mul_(20.0)
        save_model(model, task, key)
    select(task, "demo-albert", {"single_exit": {1: "plain"}, "joint": {1: "many"}})
    for stage in ("trace", "evaluate"):
        done = workspace.stage(stage, task)
        assert done.code == 0, done.err


def relabel_as_answered(task: str) -> None:
    """Turn every other report row of each trace round, and label it as the last exit then answers: models that know
    their task, without training."""
    from pipeline.evaluation.trace import load_trace, save_trace
    from pipeline.results import TraceIndex
    from pipeline.results.traces import SELECTION

    path = HERE.trace_index(task)
    index = TraceIndex.read(path, "run trace")
    entries = []
    for entry in index.traces:
        trace = load_trace(HERE.trace(task, entry.key, entry.split))
        if entry.split != SELECTION:
            trace.logits[::2] = trace.logits[::2, :, ::-1]
            labelled = replace(trace, labels=trace.answers()[:, -1])
            entry = entry.model_copy(update={"sha256": save_trace(labelled, HERE.trace(task, entry.key, entry.split))})
        entries.append(entry)
    index.model_copy(update={"traces": tuple(entries)}).write(path)


def untrained_images(workspace: Workspace) -> None:
    """The same for a small residual network and demo-images, at multi-exit training alone."""
    import torch

    from pipeline.models.multi_exit import MultiExit
    from pipeline.models.residual import ResNet
    from pipeline.tasks.stores import PIXELS, manifest_of

    assert workspace.stage("prepare", "demo-images").code == 0
    torch.manual_seed(3)
    inputs = manifest_of("demo-images").inputs[PIXELS]
    assert inputs.mean is not None and inputs.std is not None  # noqa: PT018
    backbone = ResNet(14, 4, inputs.mean, inputs.std)
    save_model(MultiExit(backbone, range(1, backbone.layers + 1), 10), "demo-images", "pictures")
    select("demo-images", "resnet14", {"joint": {1: "pictures"}})
    for stage in ("trace", "evaluate"):
        done = workspace.stage(stage, "demo-images")
        assert done.code == 0, done.err


def group_of(task: str, backbone: str, method: str, keys: dict[int, str]) -> ModelGroup:
    """One method's models of 12 layers, by seed."""
    multi_exit = method != "single_exit"
    point = GridPoint(batch_size=20, learning_rate=0.001, selection=0.9, key=next(iter(keys.values()), "none"))
    return ModelGroup(
        group=f"{task}/{backbone}/{method}", backbone=backbone, method=method, multi_exit=multi_exit, batch_size=20,
        learning_rate=0.001, grid=(point,), failed=(), layers=12, exits=tuple(range(1, 13)) if multi_exit else (12,),
        parameters=1000, early_exit_parameters=100 * multi_exit,
        trials=tuple(
            SelectedTrial(seed=seed, key=key, weights_sha256=_hash(task, key)) for seed, key in keys.items()
        ),
    )  # fmt: skip


def _hash(task: str, key: str) -> str:
    path = HERE.model(task, key) / "model.safetensors"
    return file_hash(path) if path.is_file() else "0" * 64


def evaluate_untrained(workspace: Workspace, task: str) -> Any:
    """Prepare a task, trace and evaluate a model that nobody trained, with exits that are sure of themselves."""
    import torch

    from pipeline.models.encoders.encoder import build_encoder
    from pipeline.models.multi_exit import MultiExit

    assert workspace.stage("prepare", task).code == 0
    torch.manual_seed(3)
    model = MultiExit(build_encoder(load_params().backbone("demo-albert"), 400), range(1, 13), 2)
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(20.0)
    save_model(model, task, "many")
    select(task, "demo-albert", {"joint": {1: "many"}})
    for stage in ("trace", "evaluate"):
        done = workspace.stage(stage, task)
        assert done.code == 0, done.err
    return model
