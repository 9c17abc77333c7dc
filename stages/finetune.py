"""Train every trial of the plan through one Ray Tune run and name the selected ones per task."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.running.observer import TrialObserver
from pipeline.running.ray.tune import run_plan
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import RUNS, file_hash
from pipeline.training.methods import METHODS
from pipeline.training.plan import Group, Plan, Results, Trial
from pipeline.training.trial import RUNNER, plan

SELECTED = Path("outputs/selected")


def main(stage: Stage) -> None:
    params = stage.params
    runtime = params.runtime
    context = {
        "folder": str(Path.cwd()),
        "threads": runtime.threads,
        "device": runtime.device,
        "mirror": str(runtime.hub_mirror.resolve()) if runtime.hub_mirror else None,
    }
    todo = plan(params)
    observer = TrialObserver(stage, RUNS)
    results = run_plan(todo, runner=RUNNER, root=RUNS, runtime=runtime, context=context, observer=observer)
    shutil.rmtree(SELECTED, ignore_errors=True)
    for task in params.tasks:
        groups = [_selected(g, todo, results) for g in todo.groups if g.settings["task"] == task]
        payload = {"schema": 1, "task": task, "protocol": params.protocol, "groups": groups}
        stage.write_json(SELECTED / f"{task}.json", payload)
        for group in groups:
            best = max(point["selection"] or 0.0 for point in group["grid"])
            stage.log_metrics({f"{group['group']}.selection".replace("/", "."): best})
    trials = [observer.record(t, results.get(t.key)) for t in todo.known(results)]
    stage.write_json("outputs/finetune/trials.json", {"schema": 1, "trials": trials})


def _selected(group: Group, todo: Plan, results: Results) -> dict[str, Any]:
    best = todo.best(group, results)
    assert best is not None  # run_plan refuses a group without one
    chosen = todo.selected(group, results)
    first = results[best.key]
    assert first is not None
    of_group = [t for t in todo.known(results) if t.group == group.name]
    return {
        "group": group.name,
        "backbone": group.settings["backbone"]["name"],
        "method": group.settings["method"],
        "multi_exit": METHODS[group.settings["method"]].multi_exit,
        "batch_size": best.settings["batch_size"],
        "learning_rate": best.settings["learning_rate"],
        "grid": [_point(t, results) for t in of_group if t.settings["seed"] == best.settings["seed"]],
        "trials": [
            {"seed": seed, "key": t.key, "weights_sha256": file_hash(RUNS / t.key / "model.safetensors")}
            for seed, t in chosen.items()
            if results.get(t.key) is not None
        ],
        "failed": [{"seed": t.settings["seed"], "key": t.key} for t in of_group if results.get(t.key) is None],
        "layers": first["layers"],
        "parameters": first["parameters"],
        "early_exit_parameters": first["early_exit_parameters"],
    }


def _point(trial: Trial, results: Results) -> dict[str, Any]:
    result = results.get(trial.key)
    return {
        "batch_size": trial.settings["batch_size"],
        "learning_rate": trial.settings["learning_rate"],
        "selection": None if result is None else round(result["selection"], 6),
        "key": trial.key,
    }


if __name__ == "__main__":
    run_stage("finetune", main)
