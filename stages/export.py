"""Write one task's models with early exits as ONNX graphs, with thresholds and scores of the graphs themselves."""

from typing import TYPE_CHECKING

from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE
from pipeline.results import Evaluated, Exports, Selected
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
    names = []
    with whole_folder(HERE.all_exported(task)) as folder:
        for group in (group for group in selected.groups if group.multi_exit):
            names.append(HERE.exported(task, group.backbone, group.method).parent.name)
            (folder / names[-1]).mkdir()
            exported = export(manifest, group, precisions, choosing, evaluated, folder / names[-1], threads)
            for precision, made in exported.precisions.items():
                for row in made.rows:
                    stage.log_row(
                        {
                            **{"backbone": group.backbone, "method": group.method, "criterion": row.points[0].name},
                            **{"threshold": row.points[0].threshold, "split": row.split, "mode": precision},
                        },
                        {"score": row.score.median, "layer_speedup": row.layer_speedup.median},
                        keys=[exported.key],
                    )
        stage.write(folder / HERE.exports(task).name, Exports(task=task, models=tuple(names)))


if __name__ == "__main__":
    run_stage("export", main, unasked=unasked)
