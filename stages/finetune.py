"""Train every trial of the plan through one Ray Tune run and name the selected ones per task."""

from pathlib import Path

from pipeline.layout import HERE
from pipeline.params import Params
from pipeline.results import Trials
from pipeline.running.observer import TrialObserver
from pipeline.running.ray.tune import run_plan
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder
from pipeline.tasks.stores import manifest_of
from pipeline.training.groups import Study, groups_of
from pipeline.training.plan import Plan
from pipeline.training.selection import keep_models, selected_models
from pipeline.training.trial import RUNNER


def main(stage: Stage) -> None:
    params, runtime = stage.params, stage.params.runtime
    context = {
        "folder": str(Path.cwd()),
        "threads": runtime.threads,
        "device": runtime.device,
        "mirror": str(runtime.hub_mirror.resolve()) if runtime.hub_mirror else None,
        "micro_batch": {name: block.micro_batch for name, block in params.trainings().items()},
    }
    plan = plan_of(params)
    observer = TrialObserver(stage)
    progress = run_plan(plan, runner=RUNNER, root=HERE.trials, runtime=runtime, context=context, observer=observer)
    with whole_folder(HERE.all_models) as models:
        for name in params.tasks:
            groups = [group for group in plan.groups if group.names["task"] == name]
            selected = selected_models(params.task(name), params.protocol, groups, progress)
            keep_models(selected, HERE, models / name)
            stage.write(HERE.selected(name), selected)
            for group in selected.groups:
                best = max(point.selection or 0.0 for point in group.grid)
                stage.log_metrics({f"{group.group}.selection".replace("/", "."): best})
    trials = tuple(observer.record(trial, progress.results[trial.key]) for trial in progress.trials())
    stage.write(HERE.trials_table, Trials(trials=trials))


def plan_of(params: Params) -> Plan:
    """Every task x backbone x method whose modality agrees, with its grid and the seeds."""
    backbones = [params.backbone(name) for name in params.backbones]
    study = Study(
        tasks=[(params.task(name), manifest_of(name)) for name in params.tasks],
        backbones=backbones,
        methods=params.methods,
        grids=params.grids(),
        training=params.trainings(),
        weights={},
        code={},
    )
    return Plan(tuple(groups_of(study)), tuple(params.seeds))


if __name__ == "__main__":
    run_stage("finetune", main)
