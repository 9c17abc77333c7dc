"""Write one task's models with early exits as ONNX graphs, with thresholds and scores of the graphs themselves."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE
from pipeline.results import Evaluated, Exported, Exports, Row, Selected
from pipeline.running.registering import numbers_of, precisions_of, register, selected_row
from pipeline.running.runs import TrackedRun
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder
from pipeline.tasks.stores import manifest_of

if TYPE_CHECKING:
    from pipeline.params import Params


def unasked(params: "Params", instance: str) -> bool:
    task = params.task(instance).name
    if task in params.export.tasks:
        return False
    with whole_folder(HERE.all_exported(task)) as folder:
        Exports(task=task, models=None).write(folder / HERE.exports(task).name)
    return True


def main(stage: Stage) -> None:
    from pipeline.models.deploy.writing import export
    from pipeline.models.own_traces import Choosing

    params, about = stage.params, stage.params.task(stage.instance)
    task, precisions, threads = about.name, params.export.precisions, params.runtime.threads
    manifest = manifest_of(task)
    evaluated = read_with_points(Evaluated, HERE.evaluated(task), f"run `dvc repro evaluate@{task}`")
    choosing = Choosing.of(params.evaluate, params.window(about.modality), params.protocol)
    selected = Selected.read(HERE.selected(task), "run `dvc repro finetune`")
    runs: dict[tuple[str, str, str, str | None, str], TrackedRun] = {}
    models: dict[str, Exported] = {}
    with whole_folder(HERE.all_exported(task)) as folder:
        for group in (group for group in selected.groups if group.multi_exit):
            name = HERE.exported(task, group.backbone, group.method).parent.name
            (folder / name).mkdir()
            models[name] = export(manifest, group, precisions, choosing, evaluated, folder / name, threads)
            runs |= {key: log(stage, *key, row) for key, row in rows_of(models[name])}
        stage.write(folder / HERE.exports(task).name, Exports(task=task, models=tuple(models)))
    row = selected_row(evaluated, selected, f"run `dvc repro evaluate@{task}`")
    ships = next((one for one in models.values() if (one.backbone, one.method) == (row.backbone, row.method)), None)
    if ships is not None:  # else it has one exit, and evaluate registers it
        every, precision = dict(rows_of(ships)), precisions_of(ships)[0]
        same = (row.backbone, row.method, precision, row.criterion, row.split)
        register(stage, evaluated, selected, every[same], runs[same], ships)


def rows_of(exported: Exported) -> Iterator[tuple[tuple[str, str, str, str | None, str], Row]]:
    """The rows of a model by backbone, method, precision, criterion and split."""
    for name, precision in exported.precisions.items():
        for row in precision.rows:
            yield (row.backbone, row.method, name, row.criterion, row.split), row


def log(
    stage: Stage, backbone: str, method: str, precision: str, criterion: str | None, split: str, row: Row
) -> TrackedRun:
    """Make the row's run."""
    point = row.points[0]
    return stage.log_row(
        {
            **{"backbone": backbone, "method": method, "criterion": point.name, "threshold": point.threshold},
            **{"split": split, "mode": precision},
        },
        numbers_of(row),
        keys=row.keys,
    )


if __name__ == "__main__":
    run_stage("export", main, unasked=unasked)
