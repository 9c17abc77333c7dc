"""MLflow's registry: a version for each content of a task's selected model, and an alias for the last that learned."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import TrackingError
from pipeline.identity.imports import ROOT
from pipeline.results import UnsentModel
from pipeline.running.mlflow.client import Client

ALIAS = "selected"
CONTENT_TAG, LEARNED_TAG, MODEL_TAG = "content", "learned", "model"
"""Tags: of a version, what it answers with, and whether it knows more than one answer for every row; of a run, the
version that it led to."""


def register(client: Client, experiment: str, folder: Path, model: UnsentModel) -> None:
    """Make a version of a model, unless there is one of its content, and let the alias name it, if it has learned.

    A call that is made again after a lost answer makes no second version.

    Args:
        experiment: id of the experiment.
        folder: the model's files.

    Raises:
        TrackingError: the store is away, or the model cannot be written.
    """
    run = next(iter(client.search_runs([experiment], f"tags.run = '{model.run}'", max_results=1)), None)
    run_id = None if run is None else str(run.info.run_id)
    query = f"name = '{model.registered}' and tags.{CONTENT_TAG} = '{model.content}'"
    version = next(iter(client.search_model_versions(query)), None)
    if version is None:
        version = _first(client, query, _new_version(client, experiment, folder, model, run_id))
    client.set_model_version_tag(model.registered, version.version, LEARNED_TAG, "yes" if model.learned else "nothing")
    if model.place == "." and model.learned:
        client.set_registered_model_alias(model.registered, ALIAS, version.version)
    if run_id is not None:
        client.set_tag(run_id, MODEL_TAG, f"{model.registered}/{version.version}")


def _new_version(client: Client, experiment: str, folder: Path, model: UnsentModel, run_id: str | None) -> Any:
    from mlflow.entities import LoggedModelOutput, Metric

    params = {"backbone": model.backbone, "method": model.method, "criterion": model.criterion}
    params |= {} if model.threshold is None else {"threshold": f"{model.threshold:g}"}
    tags = {**model.tags, CONTENT_TAG: model.content, "task": model.task, "key": model.key, **params}
    with TemporaryDirectory() as temporary:
        packed = Path(temporary) / "model"
        _package(folder, packed)
        logged = client.create_logged_model(experiment, model.task, run_id, tags, params, "early-exit")
        client.log_model_artifacts(logged.model_id, str(packed))
    client.finalize_logged_model(logged.model_id, "READY")
    if run_id is not None:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
        values = [Metric(name, value, model.made, 0, logged.model_id) for name, value in model.metrics.items()]
        client.log_batch(run_id, metrics=values)
    make_name(client, model.registered, model.task)
    return client.create_model_version(
        model.registered,
        f"models:/{logged.model_id}",
        run_id,
        tags,
        description=_described(model),
        model_id=logged.model_id,
    )


def _first(client: Client, query: str, made: Any) -> Any:
    """The first version of a content; ours goes again where a driver in another folder made one meanwhile."""
    first = min(client.search_model_versions(query), key=lambda version: int(version.version))
    if first.version != made.version:
        client.delete_model_version(made.name, made.version)
    return first


def make_name(client: Client, registered: str, task: str) -> None:
    """Make the registry's entry of a task's models, unless there is one; raises TrackingError."""
    query = f"name = '{registered}'"
    if client.search_registered_models(query):
        return
    try:
        client.create_registered_model(registered, description=f"Selected models of the task {task}.")
    except TrackingError:  # a driver in another folder may have made it meanwhile
        if not client.search_registered_models(query):
            raise


def _package(folder: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pipeline.running.mlflow.packaging", str(folder.absolute()), str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise TrackingError(f"the model in {folder} cannot be written for MLflow: {lines[-1] if lines else 'it died'}")


def _described(model: UnsentModel) -> str:
    at = "all layers" if model.threshold is None else f"{model.criterion} at {model.threshold:g}"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in model.metrics.items())
    return f"{model.backbone}, {model.method}, {at}: {numbers}. Trained by the trial `{model.key}`."
