"""What of params.yaml each stage hangs on, as files that DVC tracks.

DVC tracks keys of params.yaml, and a key that is not there is an error to it. A file per stage holds instead what the
stage's settings come to, defaults filled in: a key may be left out, and a default written out runs nothing.
"""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.layout import Workspace
from pipeline.params import Params
from pipeline.running.local_files import attacked_with, prepared_from, refuse_lost_files, weights_of, write_links
from pipeline.storage import whole_folder, write_json
from pipeline.tasks.task import Task


def stage_settings(params: Params, workspace: Workspace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Stage, task ("" for a stage of all) and the settings it hangs on, as JSON; `trace` hangs on none.

    Raises:
        DataError: a file that params.yaml names is missing.
    """
    blocks = params.model_dump(mode="json", exclude={"runtime"})
    blocks["methods"] = params.model_dump(mode="json", include={"methods"}, exclude_none=True)["methods"]
    latency, attack = blocks["latency"], blocks["attack"]
    timed, attacked = latency.pop("tasks"), attack.pop("tasks")
    left = blocks["export"].pop("tasks")
    for name in params.tasks:
        task = params.task(name)
        about = task_settings(task)
        backbones = [vars(spec) for spec in params.backbones_for(task.modality)] if task.modality == "text" else []
        files = prepared_from(params, task, workspace)
        yield "prepare", name, {"protocol": params.protocol, "task": about, "backbones": backbones, "files": files}
        evaluate = {**blocks["evaluate"], "window": list(params.window(task.modality))}
        yield "evaluate", name, {"protocol": params.protocol, "task": about, "evaluate": evaluate}
        choosing = {"protocol": params.protocol, "evaluate": evaluate}
        own = choosing if "pytorch-bf16" in params.latency.engines else {}  # its points are chosen there
        yield "latency", name, {"latency": latency, **own} if name in timed else {"latency": None}
        chosen = {**choosing, "export": blocks["export"]}
        yield "export", name, chosen if name in left else {"export": None}
        files = attacked_with(params, task, workspace)
        asked = {"attack": {**attack, "task": attacked[name]}, "files": files} if name in attacked else {"attack": None}
        yield "attack", name, asked
    trained = ("protocol", "on_missing", "backbones", "methods", "grid", "seeds", "training")
    images = {key: blocks["images"][key] for key in ("grid", "training")}
    tasks = {name: task_settings(params.task(name)) for name in params.tasks}
    weights = weights_of(params, workspace)
    yield "finetune", "", {"tasks": tasks, "images": images, "weights": weights, **{k: blocks[k] for k in trained}}
    yield "simulate", "", blocks["simulate"]
    yield "report", "", {"tasks": tasks, "latency": timed, "attack": sorted(attacked), "methods": list(params.methods)}


def task_settings(task: Task) -> dict[str, Any]:
    """A complete task as JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(vars(task), default=_plain))
    return plain


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else vars(value)


def write_stage_settings(params: Params, workspace: Workspace) -> None:
    """Write every stage's settings, whole or not at all, and links to local files; none of a task that is gone is left.

    Raises:
        DataError: a file that params.yaml names is missing, or would be lost.
    """
    refuse_lost_files(params, workspace)
    folder = workspace.settings
    with whole_folder(folder) as partial:
        for stage, task, settings in stage_settings(params, workspace):
            path = workspace.stage_settings(stage, task)
            write_json(partial / path.relative_to(folder), settings)
    write_links(params, workspace)
