"""Prepared data and settings of trials, as the stages make them."""

from pathlib import Path
from typing import Any

from pipeline.layout import HERE
from pipeline.models.encoders.tokenizer import tokenizer_of
from pipeline.models.names import BackboneSpec
from pipeline.results import Manifest, TrialResult
from pipeline.tasks.prepare import prepare
from pipeline.tasks.splits import Protocol
from pipeline.tasks.task import Task
from pipeline.training.code import code_key, trial_code
from pipeline.training.trial import train

CONTEXT = {"threads": 1, "device": "cpu", "mirror": None, "micro_batch": {"text": None, "image": None}}


def prepared(
    task: Task,
    *specs: BackboneSpec,
    mirror: Path | None = None,
    folder: Path | None = None,
    protocol: Protocol = "holdout",
) -> Manifest:
    """Prepare a task for some backbones, in its place in the working directory or in another folder."""
    tokenizers = {spec.name: tokenizer_of(spec, task, mirror) for spec in specs if spec.modality == "text"}
    return prepare(task, tokenizers, protocol, folder or HERE.data(task.name), mirror, {})


def settings_of(task: Task, manifest: Manifest, spec: BackboneSpec, method: str, **more: Any) -> dict[str, Any]:
    """Settings of a short trial on texts."""
    return {
        "modality": "text",
        "kind": task.kind,
        "outputs": task.outputs,
        "metrics": list(task.metrics),
        "data": manifest.inputs[spec.name].hash,
        "vocabulary": manifest.inputs[spec.name].vocabulary,
        "backbone": spec.identity(multi_exit=True),
        "method": method,
        "code": code_key(trial_code("text", method)),
        "training": {"epochs": 2, "stop_after": 2, "warmup": 0.1, "weight_decay": 0.0, "clip_norm": 1.0},
        "batch_size": 32,
        "learning_rate": 0.01,
        "seed": 1,
        **more,
    }


def trained(task: Task, manifest: Manifest, spec: BackboneSpec, method: str, **more: Any) -> TrialResult:
    """Train a short trial whose key is the method's name."""
    settings = settings_of(task, manifest, spec, method, **more)
    return train(settings, names_of(task, spec), HERE.trial(method), CONTEXT, lambda row: None)


def names_of(task: Task, spec: BackboneSpec) -> dict[str, Any]:
    """Where a worker finds what the settings identify by content."""
    return {"task": task.name, "backbone": spec.name, "hub": spec.hub}
