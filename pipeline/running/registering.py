"""The selected model of a task on its way to MLflow's registry: which one, its files, and what identifies them."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.evaluation.diagnosis import model_learned
from pipeline.evaluation.preferred import preferred
from pipeline.layout import HERE
from pipeline.models.deploy.folder import FLOAT32
from pipeline.results import (
    Evaluated,
    Exported,
    Manifest,
    ModelGroup,
    Row,
    Selected,
    UnsentModel,
    curves_of,
    read_curves,
)
from pipeline.running.runs import TrackedRun
from pipeline.running.stage import Stage
from pipeline.storage import claimed, content_key, file_hash, link_or_copy, whole_folder
from pipeline.tasks.stores import manifest_of

FORMAT = 2
"""To be raised where a model must be registered anew although its files are the same."""


def selected_row(evaluated: Evaluated, selected: Selected | None, remedy: str) -> Row:
    """The operating point of a task that its selection rows prefer; without early exits the best model, all layers.

    Raises:
        ArtifactError: evaluate's curves are missing; the message ends with `remedy`.
    """
    split = evaluated.rows[0].split
    curves = [*curves_of(read_curves(HERE.curves(evaluated.task), evaluated, remedy))]
    best = preferred(evaluated.rows, curves, split)
    if best is not None:
        return best
    groups = selected.groups if selected else ()
    scores = {(group.backbone, group.method): group.point.selection for group in groups}
    whole = [row for row in evaluated.rows if row.split == split and row.criterion is None]
    return max(whole, key=lambda row: scores.get((row.backbone, row.method)) or -2.0)  # below every score


def group_of(selected: Selected | None, row: Row) -> ModelGroup | None:
    """The models of a row; None where the selection is not here."""
    groups = selected.groups if selected else ()
    return next((one for one in groups if (one.backbone, one.method) == (row.backbone, row.method)), None)


def numbers_of(row: Row) -> dict[str, float | None]:
    """Medians over a row's seeds, by the names that they have in MLflow."""
    return {
        **{"score": row.score.median, "score_low": row.score.low, "score_high": row.score.high},
        **{"layer_speedup": row.layer_speedup.median, "flop_speedup": row.flop_speedup.median},
        **({} if row.cost_ms is None else {"expected_ms": row.cost_ms.median}),
    }


def register(
    stage: Stage,
    evaluated: Evaluated,
    selected: Selected | None,
    row: Row,
    run: TrackedRun,
    exported: Exported | None = None,
) -> None:
    """Register the first seed's model of a row, unless MLflow has it, or the model is not here.

    Args:
        row: the selected one, of the first report split.
        run: the row's.
        exported: the model as graphs, through which it then answers; None: PyTorch.
    """
    group = group_of(selected, row)
    model_file = None if group is None else HERE.model(evaluated.task, group.trials[0].key) / "model.safetensors"
    if group is None or model_file is None or not model_file.is_file():
        where = model_file or HERE.selected(evaluated.task)
        print(f"the selected model is not registered, since {where} is not here; `dvc pull` may bring it", flush=True)
        return
    manifest, key = manifest_of(evaluated.task), group.trials[0].key
    point = row.point(key)
    if exported is None:
        files, content = files_of(manifest, group), content_of(manifest, evaluated, group, row.split, point.name)
    else:
        files, content = files_of_graphs(exported), content_of_graphs(manifest, exported, point.name)
    model = UnsentModel(
        task=manifest.task,
        content=content,
        run=run.id,
        made=int(time.time() * 1000),
        place=HERE.place,
        backbone=row.backbone,
        method=row.method,
        criterion=point.name,
        threshold=point.threshold,
        key=key,
        columns=manifest.columns if manifest.modality == "text" else (),
        learned=model_learned(evaluated, group, row.split),
        precisions=() if exported is None else precisions_of(exported),
        example=example_of(manifest),
        metrics={name: value for name, value in numbers_of(row).items() if value is not None},
        tags={name: value for name, value in stage.tags.items() if not name.startswith("mlflow.")},
    )
    if not model.learned:
        print(f"{model.task}: the selected model has learned nothing; it is registered without an alias", flush=True)
    keep(model, files)
    stage.tracker.send_models()


def keep(model: UnsentModel, files: Iterable[Path]) -> None:
    """Lay a model where it waits for the registry; a driver beside this one may write or register the same."""
    with claimed(HERE.claims, "models"), whole_folder(HERE.unsent_model(model.content)) as folder:
        for path in files:
            link_or_copy(path, folder / path.relative_to(HERE.root))
        model.write(folder / f"{model.task}.json")


def files_of(manifest: Manifest, group: ModelGroup) -> list[Path]:
    """The files of the first seed's model that PyTorch answers with."""
    task = manifest.task
    tokenizer = [HERE.tokenizer(task, group.backbone)] if manifest.modality == "text" else []
    return [*_weights(task, group), *tokenizer, HERE.manifest(task), HERE.selected(task), HERE.evaluated(task)]


def _weights(task: str, group: ModelGroup) -> list[Path]:
    folder = HERE.model(task, group.trials[0].key)
    return [folder / "model.json", folder / "model.safetensors"]


def content_of(manifest: Manifest, evaluated: Evaluated, group: ModelGroup, split: str, criterion: str) -> str:
    """Hash of all that the answers of PyTorch depend on: files, names of classes, operating points."""
    files = [*_weights(manifest.task, group)]
    if manifest.modality == "text":
        files.append(HERE.tokenizer(manifest.task, group.backbone))
    points = {
        row.criterion: row.point(group.trials[0].key).model_dump(mode="json")
        for row in evaluated.rows
        if (row.backbone, row.method, row.split) == (group.backbone, group.method, split) and row.criterion
    }
    return _content(manifest, {path.name: file_hash(path) for path in files}, points, criterion)


def files_of_graphs(exported: Exported) -> list[Path]:
    """The files that graphs answer with."""
    description = HERE.exported(exported.task, exported.backbone, exported.method)
    return [description, *(description.parent / name for name in exported.files), HERE.manifest(exported.task)]


def content_of_graphs(manifest: Manifest, exported: Exported, criterion: str) -> str:
    """Hash of all that the answers of graphs depend on; not of versions, nor of scores."""
    points = {
        name: [point.model_dump(mode="json") for point in precision.points]
        for name, precision in exported.precisions.items()
    }
    return _content(manifest, exported.files, points, criterion)


def _content(manifest: Manifest, files: Mapping[str, str], points: Mapping[Any, Any], criterion: str) -> str:
    names = {"columns": manifest.columns, "classes": manifest.label_names, "criterion": criterion}
    return content_key({"format": FORMAT, "task": manifest.task, "files": dict(files), "points": points, **names})


def precisions_of(exported: Exported) -> tuple[str, ...]:
    """The precisions of an exported model, float32 first, where it has it."""
    return tuple(sorted(exported.precisions, key=lambda name: name != FLOAT32))


def example_of(manifest: Manifest) -> tuple[str, ...]:
    """The first selection row's texts; nothing for images."""
    if manifest.modality == "image":
        return ()
    import pyarrow.parquet as parquet

    first = parquet.read_table(HERE.texts(manifest.task, "selection"), columns=list(manifest.columns)).slice(0, 1)
    return tuple(str(first[column][0].as_py()) for column in manifest.columns)
