"""Replay every criterion over one task's traces: choose on selection rows, report on report rows, predict the rest."""

from collections.abc import Sequence

from pipeline.evaluation.blocks import set_threads
from pipeline.evaluation.choosing import make_chooser
from pipeline.evaluation.group import Evaluation, evaluate_group, merged
from pipeline.evaluation.groups import load_groups
from pipeline.layout import HERE
from pipeline.results import Choosing, Evaluated, ExitScores, PredictionFile, Predictions, Row, TraceIndex, curves_text
from pipeline.running.progress import Bar
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
    models = len({(entry.backbone, entry.method) for entry in index.traces})
    with (
        whole_folder(HERE.predictions(task.name)) as folder,
        Bar("models", models, show=params.runtime.progress) as bar,
    ):
        for group in load_groups(index, HERE.traces(task.name)):
            parts.append(evaluate_group(group, settings.criteria, task.metrics, chooser, params.protocol))
            files += write_predictions(folder, task, group, parts[-1].rows)
            bar.step()
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
        log(stage, row, evaluated.exits)


def log(stage: Stage, row: Row, every: Sequence[ExitScores]) -> None:
    """Make the row's run: medians over its seeds, and the first seed's curve over the exits."""
    exits = next((one for one in every if one.key == row.keys[0] and one.split == row.split), None)
    point = row.points[0]
    stage.log_row(
        {
            **{"backbone": row.backbone, "method": row.method, "criterion": point.name, "split": row.split},
            **{"threshold": point.threshold, "seeds": len(row.seeds), "rule": row.rule, "in_window": row.in_window},
        },
        {
            **{"score": row.score.median, "score_low": row.score.low, "score_high": row.score.high},
            **{"layer_speedup": row.layer_speedup.median, "flop_speedup": row.flop_speedup.median},
        },
        keys=row.keys,
        by_layer=dict(zip(exits.layers, exits.scores, strict=True)) if exits else None,
    )


if __name__ == "__main__":
    run_stage("evaluate", main)
