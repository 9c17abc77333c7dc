"""Train, trace and evaluate residual networks with exits."""

import shutil
from pathlib import Path

from pipeline.evaluation.choosing import make_rule
from pipeline.evaluation.group import CURVE_COLUMNS, Seeded, curves_csv, evaluate_group, merged
from pipeline.evaluation.trace import save_trace
from pipeline.models.image_recording import record_image_trace
from pipeline.models.recording import device_of
from pipeline.running.observer import TrialObserver
from pipeline.running.ray.tune import run_plan
from pipeline.running.stage import Stage, run_stage
from pipeline.tasks.image.prepare import IMAGES, SELECTION, prepare_images
from pipeline.tasks.image.sources import REPORT
from pipeline.training.image_trial import RUNNER, describe, plan
from pipeline.training.plan import Group, Trial

RUNS = Path("runs/cifar")
OUTPUTS = Path("outputs/cifar")
METRICS = ("accuracy",)


def main(stage: Stage) -> None:
    params, runtime = stage.params, stage.params.runtime
    cifar = params.cifar
    device_of(runtime.device)  # refuses a GPU that is not there before any work is done
    for folder in IMAGES.glob("*"):
        if folder.name not in cifar.datasets:
            shutil.rmtree(folder)  # this stage's output persists; leave nothing that params do not name
    manifests = {
        name: prepare_images(name, cifar.rows, params.protocol, IMAGES / name, runtime.hub_mirror)
        for name in cifar.datasets
    }
    todo = plan(cifar, manifests)
    context = {"folder": str(Path.cwd()), "threads": runtime.threads, "device": runtime.device}
    observer = TrialObserver(stage, RUNS)
    results = run_plan(todo, runner=RUNNER, root=RUNS, runtime=runtime, context=context, observer=observer)
    groups = [describe(group, todo, results) for group in todo.groups]
    shutil.rmtree(OUTPUTS / "traces", ignore_errors=True)
    rule = make_rule(cifar.choose.model_dump(), cifar.window)
    parts = []
    for group, about in zip(todo.groups, groups, strict=True):
        chosen = {s: t for s, t in todo.selected(group, results).items() if results.get(t.key) is not None}
        part = evaluate_group(
            {name: about[name] for name in ("dataset", "backbone", "method")},
            _trace(stage, group, chosen),
            cifar.criteria if about["multi_exit"] else {},
            METRICS,
            rule,
            report_splits=[REPORT],
            selected_on=SELECTION if params.protocol == "holdout" else REPORT,
        )
        parts.append(part)
    found = merged(parts)
    payload = {"schema": 1, "kind": "classification", "metrics": list(METRICS), "protocol": params.protocol}
    payload |= {"window": list(cifar.window), "choose": cifar.choose.model_dump(), "groups": groups}
    stage.write_json(OUTPUTS / "cifar.json", payload | found.stored())
    trials = [observer.record(t, results.get(t.key)) for t in todo.known(results)]
    stage.write_json(OUTPUTS / "trials.json", {"schema": 1, "trials": trials})
    stage.write_text(OUTPUTS / "curves.csv", curves_csv(found.curves, ["dataset", *CURVE_COLUMNS]))
    for row in found.rows:
        name = f"{row['dataset']}.{row['backbone']}.{row['method']}.{row['criterion'] or 'full'}"
        stage.log_metrics({f"{name}.score": row["score"]["median"], f"{name}.speedup": row["layer_speedup"]["median"]})


def _trace(stage: Stage, group: Group, chosen: dict[int, Trial]) -> list[Seeded]:
    """Record the group's selected models over every split; leave the traces on disk and hand them on."""
    import torch

    torch.set_num_threads(stage.params.runtime.threads)
    device = device_of(stage.params.runtime.device)
    dataset = group.settings["dataset"]
    members = []
    for seed, trial in chosen.items():
        traces = {}
        for split in (SELECTION, REPORT):
            traces[split] = record_image_trace(RUNS / trial.key, dataset, split, device)
            save_trace(traces[split], OUTPUTS / "traces" / dataset / f"{trial.key}.{split}.safetensors")
        members.append(Seeded(seed, trial.key, traces))
    return members


if __name__ == "__main__":
    run_stage("cifar", main)
