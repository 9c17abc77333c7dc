"""Train every trial of the plan in one Ray Tune run, and select the models of each task."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import ReadWriteLock, Timeout

from pipeline.attacks.needs import check
from pipeline.layout import HERE
from pipeline.results import ModelGroup, Selected, Trials
from pipeline.running.mlflow.views import TRIALS, link
from pipeline.running.observer import TrialObserver
from pipeline.running.ray.search import engines_of
from pipeline.running.ray.tune import run_plan
from pipeline.running.stage import Stage, run_stage
from pipeline.running.storage import storage_of
from pipeline.running.trial_files import Home, inputs_of_trials
from pipeline.storage import whole_folder
from pipeline.tasks.stores import manifest_of
from pipeline.training.code import trial_code
from pipeline.training.estimate import compared, estimate
from pipeline.training.groups import kinds_of, plan_of
from pipeline.training.progress import Progress
from pipeline.training.selection import keep_models, selected_models
from pipeline.training.trial import RUNNER


def main(stage: Stage) -> None:
    home = Home(storage_of(stage.params.runtime), HERE.trials)
    HERE.claims.mkdir(parents=True, exist_ok=True)
    used = ReadWriteLock(HERE.trials_used)
    with used.read_lock():
        progress = train_and_select(stage, home)
    with suppress(Timeout), used.write_lock(timeout=0):  # else another plan may select what this one did not
        home.drop(progress)


def train_and_select(stage: Stage, home: Home) -> Progress:
    """Run the plan and write the stage's outputs."""
    params, runtime = stage.params, stage.params.runtime
    context: dict[str, Any] = {
        "folder": str(Path.cwd()),
        "threads": runtime.threads,
        "device": runtime.device,
        "mirror": str(runtime.hub_mirror.resolve()) if runtime.hub_mirror else None,
        "micro_batch": {name: block.micro_batch for name, block in params.trainings().items()},
    }
    if params.attack.tasks:  # found missing after the training, it would have been in vain
        check(params.attack.resources, params.attack.recipe)
    context |= inputs_of_trials(params, home.storage)
    plan = plan_of(params)
    manifests = {name: manifest_of(name) for name in params.tasks}
    expected = estimate(Progress(plan, HERE.trials, engines_of(plan), home.hashes), manifests)
    observer = TrialObserver(stage)
    try:
        progress = run_plan(
            plan,
            runner=RUNNER,
            root=HERE.trials,
            runtime=runtime,
            context=context,
            observer=observer,
            home=home,
            on_missing=params.on_missing,
        )
    finally:
        observer.close()
    observer.complete(progress)
    if (line := compared(expected, progress)) is not None:
        print(line, flush=True)
    with whole_folder(HERE.all_models) as models, whole_folder(HERE.all_selected) as selections:
        for name in params.tasks:
            groups = [group for group in plan.groups if group.names["task"] == name]
            selected = selected_models(params.task(name), params.protocol, groups, progress)
            keep_models(selected, HERE, models / name)
            stage.write(selections / HERE.selected(name).name, selected)
            for group in selected.groups:
                stage.log_row(
                    {
                        **{
                            "task": name,
                            "backbone": group.backbone,
                            "method": group.method,
                            "seeds": len(group.trials),
                        },
                        **{"batch_size": group.batch_size, "learning_rate": group.learning_rate},
                    },
                    {"selection": best_selection(group)},
                    keys=[trial.key for trial in group.trials],
                )
    stage.describe(described(stage, [Selected.read(HERE.selected(name), "") for name in params.tasks]))
    today = {kind: trial_code(*kind).hash for kind in kinds_of(params)}
    records = []
    for trial in progress.trials():
        result, stop = progress.results.get(trial.key), progress.stopped.get(trial.key)
        other = result is not None and result.code != today[trial.settings["modality"], trial.settings["method"]]
        records.append(observer.record(trial, result, stop.epoch if stop else None, other))
    stage.write(HERE.trials_table, Trials(trials=tuple(records)))
    return progress


def described(stage: Stage, every: Sequence[Selected]) -> str:
    """The selected models as a table in Markdown."""
    rows = [
        f"| {one.task} | {group.backbone} | {group.method} | {group.batch_size} | {group.learning_rate:g} | "
        f"{best_selection(group)} | {', '.join(trial.key for trial in group.trials)} |"
        for one in every
        for group in one.groups
    ]
    head = "| Task | Backbone | Method | Batch | Learning rate | Selection | Trials |\n|---|---|---|---|---|---|---|\n"
    return head + "\n".join(rows) + f"\n\n[All trials as charts]({link(stage.tracker.experiment_id, TRIALS)})"


def best_selection(group: ModelGroup) -> float | None:
    """The best score of the trials that ended; a correlation may be below 0, a failed trial has none."""
    ended = (point for point in group.grid if point.stopped_after is None)
    return max((point.selection for point in ended if point.selection is not None), default=None)


if __name__ == "__main__":
    run_stage("finetune", main, per_task=False)
