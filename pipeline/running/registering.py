"""The selected model of a task on its way to MLflow's registry: which one, its files, and what identifies them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.evaluation.preferred import preferred
from pipeline.layout import HERE, Workspace
from pipeline.results import Curve, Evaluated, Manifest, ModelGroup, Row, Selected, UnsentModel
from pipeline.running.runs import TrackedRun
from pipeline.running.stage import Stage
from pipeline.storage import content_key, file_hash, link_or_copy, whole_folder
from pipeline.tasks.stores import manifest_of

FORMAT = 1
"""To be raised where a model must be registered anew although its files are the same."""


def selected_row(evaluated: Evaluated, selected: Selected | None, curves: Sequence[Curve]) -> Row:
    """The operating point of a task that its selection rows prefer; without early exits the best model, all layers."""
    split = evaluated.rows[0].split
    best = preferred(evaluated.rows, curves, split)
    if best is not None:
        return best
    groups = selected.groups if selected else ()
    scores = {(group.backbone, group.method): group.point.selection for group in groups}
    whole = [row for row in evaluated.rows if row.split == split and row.criterion is None]
    return max(whole, key=lambda row: scores.get((row.backbone, row.method)) or -2.0)  # below every score


def register(
    stage: Stage,
    evaluated: Evaluated,
    selected: Selected | None,
    row: Row,
    run: TrackedRun,
    metrics: Mapping[str, float | None],
) -> None:
    """Register the first seed's model of a row, unless MLflow has it, or the model is not here.

    Args:
        row: the selected one, of the first report split.
        run: the row's.
        metrics: the row's numbers.
    """
    groups = selected.groups if selected else ()
    group = next((one for one in groups if (one.backbone, one.method) == (row.backbone, row.method)), None)
    model_file = None if group is None else HERE.model(evaluated.task, group.trials[0].key) / "model.safetensors"
    if group is None or model_file is None or not model_file.is_file():
        where = model_file or HERE.selected(evaluated.task)
        print(f"the selected model is not registered, since {where} is not here; `dvc pull` may bring it", flush=True)
        return
    manifest, key = manifest_of(evaluated.task), group.trials[0].key
    point = row.point(key)
    content = content_of(manifest, evaluated, group, row.split, point.name)
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
        example=example_of(manifest),
        metrics={name: value for name, value in metrics.items() if value is not None},
        tags={name: value for name, value in stage.tags.items() if not name.startswith("mlflow.")},
    )
    with whole_folder(HERE.unsent_model(content)) as folder:
        there = Workspace(folder)
        for path in files_of(manifest, group):
            link_or_copy(path, folder / path.relative_to(HERE.root))
        link_or_copy(HERE.selected(manifest.task), there.selected(manifest.task))
        link_or_copy(HERE.evaluated(manifest.task), there.evaluated(manifest.task))
        model.write(folder / f"{manifest.task}.json")
    stage.tracker.send_models()


def files_of(manifest: Manifest, group: ModelGroup) -> list[Path]:
    """The files of the first seed's model that it answers with."""
    folder = HERE.model(manifest.task, group.trials[0].key)
    tokenizer = [HERE.tokenizer(manifest.task, group.backbone)] if manifest.modality == "text" else []
    return [folder / "model.json", folder / "model.safetensors", *tokenizer, HERE.manifest(manifest.task)]


def content_of(manifest: Manifest, evaluated: Evaluated, group: ModelGroup, split: str, criterion: str) -> str:
    """Hash of all that the model's answers depend on: files, names of classes, operating points."""
    files = [path for path in files_of(manifest, group) if path != HERE.manifest(manifest.task)]
    points = {
        row.criterion: row.point(group.trials[0].key).model_dump(mode="json")
        for row in evaluated.rows
        if (row.backbone, row.method, row.split) == (group.backbone, group.method, split) and row.criterion
    }
    names = {"columns": manifest.columns, "classes": manifest.label_names, "criterion": criterion}
    hashes = {path.name: file_hash(path) for path in files}
    return content_key({"format": FORMAT, "task": manifest.task, "files": hashes, "points": points, **names})


def example_of(manifest: Manifest) -> tuple[str, ...]:
    """The first selection row's texts; nothing for images."""
    if manifest.modality == "image":
        return ()
    import pyarrow.parquet as parquet

    first = parquet.read_table(HERE.texts(manifest.task, "selection"), columns=list(manifest.columns)).slice(0, 1)
    return tuple(str(first[column][0].as_py()) for column in manifest.columns)
