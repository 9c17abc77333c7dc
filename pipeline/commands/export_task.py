"""The export of a task's selected model, with the settings of params.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.ask import chosen_group
from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE
from pipeline.models.deploy.writing import export, refuse_precisions
from pipeline.models.own_traces import Choosing
from pipeline.results import Evaluated, Exported, Selected
from pipeline.storage import whole_folder
from pipeline.tasks.stores import manifest_of

if TYPE_CHECKING:
    from pipeline.params import Params


def export_task(
    params: "Params", task: str, backbone: str | None, method: str | None, precisions: Sequence[str], folder: Path
) -> Exported:
    """Export a selected model into `folder`, which is written whole or not at all.

    Raises:
        ParamsError: an unknown name, or one that is missing among several.
        ArtifactError: the task was not trained, traced or evaluated.
    """
    about = params.task(task)
    refuse_precisions(precisions)
    manifest = manifest_of(about.name)
    group = chosen_group(Selected.read(HERE.selected(about.name), "run `dvc repro`"), backbone, method)
    evaluated = read_with_points(Evaluated, HERE.evaluated(about.name), f"run `dvc repro evaluate@{about.name}`")
    choosing = Choosing.of(params.evaluate, params.window(about.modality), params.protocol)
    with whole_folder(folder) as partial:
        return export(manifest, group, precisions, choosing, evaluated, partial, params.runtime.threads)
