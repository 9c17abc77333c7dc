"""Train every trial of the plan in one Ray Tune run, and select the models of each task."""

from pathlib import Path

from pipeline.layout import HERE
from pipeline.models.weights import weights_identity
from pipeline.params import Params
from pipeline.results import Trials
from pipeline.running.observer import TrialObserver
from pipeline.running.ray.tune import run_plan
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder
from pipeline.tasks.stores import manifest_of
from pipeline.tasks.task import Modality
from pipeline.training.code import code_key, trial_code
from pipeline.training.groups import Study, groups_of
from pipeline.training.methods import METHODS
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
    with whole_folder(HERE.all_models) as models, whole_folder(HERE.all_selected) as selections:
        for name in params.tasks:
            groups = [group for group in plan.groups if group.names["task"] == name]
            selected = selected_models(params.task(name), params.protocol, groups, progress)
            keep_models(selected, HERE, models / name)
            stage.write(selections / HERE.selected(name).name, selected)
            for group in selected.groups:
                best = max(point.selection or 0.0 for point in group.grid)
                stage.log_metrics({f"{group.group}.selection".replace("/", "."): best})
    today = {kind: trial_code(*kind).hash for kind in kinds_of(params)}
    records = []
    for trial in progress.trials():
        result = progress.results[trial.key]
        other = result is not None and result.code != today[trial.settings["modality"], trial.settings["method"]]
        records.append(observer.record(trial, result, other))
    stage.write(HERE.trials_table, Trials(trials=tuple(records)))


def plan_of(params: Params) -> Plan:
    """The plan: tasks x backbones x methods of the same modality, with grids and seeds."""
    backbones, mirror = [params.backbone(name) for name in params.backbones], params.runtime.hub_mirror
    study = Study(
        tasks=[(params.task(name), manifest_of(name)) for name in params.tasks],
        backbones=backbones,
        methods=params.methods,
        grids=params.grids(),
        training=params.trainings(),
        weights={spec.name: weights_identity(spec.hub, mirror) if spec.hub else "" for spec in backbones},
        code={kind: code_key(trial_code(*kind)) for kind in kinds_of(params)},
    )
    return Plan(tuple(groups_of(study)), tuple(params.seeds))


def kinds_of(params: Params) -> list[tuple[Modality, str]]:
    """The pairs of modality and method that the plan trains."""
    modalities = dict.fromkeys(params.task(name).modality for name in params.tasks)
    return [(kind, name) for name in params.methods for kind in METHODS[name].modalities if kind in modalities]


if __name__ == "__main__":
    run_stage("finetune", main)
