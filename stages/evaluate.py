"""Replay every criterion over one task's traces: choose on selection rows, report on report rows, predict the rest."""

from pipeline.evaluation.blocks import set_threads
from pipeline.evaluation.choosing import make_chooser
from pipeline.evaluation.group import Evaluation, evaluate_group, merged
from pipeline.evaluation.groups import load_groups
from pipeline.layout import HERE
from pipeline.results import Choosing, Evaluated, PredictionFile, Predictions, TraceIndex, curves_text
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder
from pipeline.tasks.predictions import write_predictions


def main(stage: Stage) -> None:
    params, task = stage.params, stage.params.task(stage.instance)
    settings = params.evaluate
    set_threads(params.runtime.threads)
    chooser = make_chooser(settings.choose.model_dump(), params.window(task.modality))
    index = TraceIndex.read(HERE.trace_index(task.name), f"run `dvc repro trace@{task.name}`")
    parts: list[Evaluation] = []
    files: list[PredictionFile] = []
    with whole_folder(HERE.predictions(task.name)) as folder:
        for group in load_groups(index, HERE.traces(task.name)):
            parts.append(evaluate_group(group, settings.criteria, task.metrics, chooser, params.protocol))
            files += write_predictions(folder, task, group, parts[-1].rows)
        stage.write(folder / HERE.predictions_index(task.name).name, Predictions(task=task.name, files=tuple(files)))
    every = merged(parts)
    evaluated = Evaluated(
        task=task.name,
        modality=task.modality,
        kind=task.kind,
        metrics=task.metrics,
        protocol=params.protocol,
        choosing=Choosing(**settings.choose.model_dump(), window=params.window(task.modality)),
        rows=every.rows,
        exits=every.exits,
        diagnosis=every.diagnosis,
    )
    stage.write(HERE.evaluated(task.name), evaluated)
    stage.write_text(HERE.curves(task.name), curves_text(every.curves))
    for row in evaluated.rows:
        name = f"{row.backbone}.{row.method}.{row.points[0].name}.{row.split}"
        stage.log_metrics({f"{name}.score": row.score.median, f"{name}.speedup": row.layer_speedup.median})


if __name__ == "__main__":
    run_stage("evaluate", main)
