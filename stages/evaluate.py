"""Replay every criterion over one task's traces: choose on selection rows, report on report rows, predict the rest."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.evaluation.blocks import set_threads
from pipeline.evaluation.choosing import make_chooser
from pipeline.evaluation.diagnosis import learned
from pipeline.evaluation.group import Evaluation, evaluate_group, merged
from pipeline.evaluation.groups import load_groups
from pipeline.layout import HERE
from pipeline.models.device import machine
from pipeline.params import Params
from pipeline.results import (
    Choosing,
    Evaluated,
    ExitCosts,
    ExitScores,
    PredictionFile,
    Predictions,
    Row,
    Selected,
    TraceIndex,
    curves_text,
    registered_name,
)
from pipeline.running.mlflow.views import ROWS, link
from pipeline.running.progress import Bar
from pipeline.running.registering import group_of, numbers_of, register, selected_row
from pipeline.running.runs import TrackedRun
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder
from pipeline.tasks.predictions import write_predictions
from pipeline.tasks.stores import manifest_of
from pipeline.tasks.task import Modality


def main(stage: Stage) -> None:
    params, task = stage.params, stage.params.task(stage.instance)
    settings = params.evaluate
    set_threads(params.runtime.threads)
    chooser = make_chooser(settings.choose.model_dump(), params.window(task.modality))
    costs = measured_costs(params, task.name)
    index = TraceIndex.read(HERE.trace_index(task.name), f"run `dvc repro trace@{task.name}`")
    parts: list[Evaluation] = []
    files: list[PredictionFile] = []
    models = len({(entry.backbone, entry.method) for entry in index.traces})
    with (
        whole_folder(HERE.predictions(task.name)) as folder,
        Bar("models", models, show=params.runtime.progress) as bar,
    ):
        for group in load_groups(index, HERE.traces(task.name)):
            own = chooser.for_model(group.backbone, group.method, costs)
            parts.append(evaluate_group(group, settings.criteria, task.metrics, own, params.protocol))
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
        choosing=choosing_of(params, task.modality, costs),
        rows=every.rows,
        exits=every.exits,
        diagnosis=every.diagnosis,
        costs=costs,
    )
    stage.write(HERE.evaluated(task.name), evaluated)
    stage.write_text(HERE.curves(task.name), curves_text(every.curves))
    for line in (*over_budget(evaluated), *ignorant(evaluated)):
        print(line, flush=True)
    runs = [log(stage, row, evaluated.exits) for row in evaluated.rows]
    show_selected(stage, evaluated, runs)


def measured_costs(params: Params, task: str) -> tuple[ExitCosts, ...]:
    """What each exit costs, for rule `latency`; nothing for the others, which need no model.

    Raises:
        ArtifactError: a selected model is not here.
        UnsupportedError: the engine does not run here.
    """
    choose, runtime = params.evaluate.choose, params.runtime
    if choose.rule != "latency":
        return ()
    from pipeline.models.costs import costs_of

    selected = Selected.read(HERE.selected(task), "run `dvc repro finetune`")
    return tuple(costs_of(selected, manifest_of(task), choose.engine or "pytorch", runtime.threads, runtime.device))


def choosing_of(params: Params, modality: Modality, costs: Sequence[ExitCosts]) -> Choosing:
    """The chooser for the record: its settings, and the machine whose costs it read."""
    settings = params.evaluate.choose.model_dump()
    if params.evaluate.choose.rule == "latency":
        settings |= {"engine": settings["engine"] or "pytorch", "machine": costs[0].machine if costs else machine()}
    return Choosing(**settings, window=params.window(modality))


def over_budget(evaluated: Evaluated) -> Iterator[str]:
    """A line for each model and criterion of which no setting keeps to the budget of rule `latency`."""
    choosing, first = evaluated.choosing, evaluated.rows[0].split
    for row in evaluated.rows:
        if choosing.rule == "latency" and not row.in_window and row.split == first:
            yield (
                f"{evaluated.task}: {row.backbone}/{row.method}, {row.criterion}: no setting keeps to "
                f"evaluate.choose.budget_ms {choosing.budget_ms:g} in {choosing.engine} on {choosing.machine} on every "
                "seed; the fastest was taken"
            )


def ignorant(evaluated: Evaluated) -> Iterator[str]:
    """A line for each model that has learned nothing on some seed, by the first report split."""
    first = evaluated.rows[0].split
    for row in evaluated.rows:
        if (row.criterion, row.split) != (None, first):
            continue
        seeds = [seed for seed, knows in learned(row, evaluated.diagnosis).by_seed.items() if not knows]
        name, same = (
            f"{evaluated.task}: {row.backbone}/{row.method}",
            f"no better than one answer for every row of {first}",
        )
        if len(seeds) == len(row.seeds):
            remedy = "it needs more rows, more epochs or another learning rate"
            yield f"{name} has learned nothing: with all layers it is {same}; {remedy}"
        elif seeds:
            are = "seed {} is" if len(seeds) == 1 else "seeds {} are"
            yield f"{name}: with all layers, {are.format(', '.join(map(str, seeds)))} {same}"


def show_selected(stage: Stage, evaluated: Evaluated, runs: Sequence[TrackedRun]) -> None:
    """Give the stage's run the numbers of the preferred operating point, and register its model where it is here.

    Traces alone are enough for all else that this stage does.

    Args:
        runs: of the rows.
    """
    remedy = f"run `dvc repro evaluate@{evaluated.task}`"
    path = HERE.selected(evaluated.task)
    selected = Selected.read(path, "run `dvc repro finetune`") if path.is_file() else None
    row = selected_row(evaluated, selected, remedy)
    stage.run.log_params({"task": evaluated.task, **settings_of(row)})
    stage.log_metrics(numbers_of(row))
    stage.describe(
        f"Selected: **{row.points[0].name}** of {row.backbone}, {row.method}, on {row.split}.\n\n"
        f"[All rows as charts]({link(stage.tracker.experiment_id, ROWS)}), "
        f"[the registered model](#/models/{registered_name(evaluated.task)})"
    )
    group = group_of(selected, row)
    if group is not None and group.multi_exit and evaluated.task in stage.params.export.tasks:
        print("the stage export registers the selected model, as the graphs that it writes", flush=True)
        return
    register(stage, evaluated, selected, row, runs[evaluated.rows.index(row)])


def log(stage: Stage, row: Row, every: Sequence[ExitScores]) -> TrackedRun:
    """Make the row's run: medians over its seeds, and the first seed's curve over the exits."""
    exits = next((one for one in every if one.key == row.keys[0] and one.split == row.split), None)
    by_layer = dict(zip(exits.layers, exits.scores, strict=True)) if exits else None
    return stage.log_row(settings_of(row), numbers_of(row), keys=row.keys, by_layer=by_layer)


def settings_of(row: Row) -> dict[str, Any]:
    """What a row is of."""
    point = row.points[0]
    return {
        **{"backbone": row.backbone, "method": row.method, "criterion": point.name, "split": row.split},
        **{"threshold": point.threshold, "seeds": len(row.seeds), "rule": row.rule, "in_window": row.in_window},
    }


if __name__ == "__main__":
    run_stage("evaluate", main)
