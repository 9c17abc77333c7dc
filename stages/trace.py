"""Record every exit of one task's selected models on every split; existing traces are reused."""

from pipeline.layout import HERE
from pipeline.models.device import device_of
from pipeline.results import Selected, TraceIndex
from pipeline.running.ray.jobs import fan_out
from pipeline.running.settings import Runtime
from pipeline.running.stage import Stage, run_stage
from pipeline.running.storage import storage_of
from pipeline.storage import whole_folder
from pipeline.tasks.splits import SELECTION
from pipeline.tasks.stores import manifest_of
from pipeline.training.code import code_key, recording_code

LARGEST_TRACKED = 16 * 2**20
"""Bytes of a trace that MLflow gets too; ten thousand rows of ten classes at 27 exits have 11 MB."""


def main(stage: Stage) -> None:
    from pipeline.models.trace_cache import RUNNER, Recording

    task, runtime = stage.params.task(stage.instance).name, stage.params.runtime
    manifest = manifest_of(task)
    selected = Selected.read(HERE.selected(task), "run `dvc repro finetune`")
    splits = (SELECTION, *manifest.report_splits, *manifest.unlabelled_splits)
    code = code_key(recording_code(manifest.modality))
    models = [
        Recording(task, group, trial, splits, runtime.device, runtime.threads, code)
        for group in selected.groups
        for trial in group.trials
    ]
    storage = storage_of(runtime)
    places, device_by_key, recorded = devices(runtime), dict[str, str](), 0
    todo = {}  # by key: groups of equal settings share their trials
    storage.recover(HERE.recorded, [path for model in models for at in places for path in model.paths(at).values()])
    for model in models:
        device = model.recorded_on(places)
        if device is None:
            todo[model.trial.key] = model
        else:
            device_by_key[model.trial.key] = device

    def done(model: Recording, result: tuple[str, int]) -> None:
        nonlocal recorded
        device_by_key[model.trial.key], count = result
        recorded += count
        if runtime.progress:
            name = f"{model.group.backbone}/{model.group.method} seed={model.trial.seed}"
            print(f"{name}: {count} traces recorded on {result[0]}", flush=True)

    fan_out(
        list(todo.values()), runner=RUNNER, root=HERE.recorded, runtime=runtime, done=done, label="models", brief=True
    )
    with whole_folder(HERE.traces(task)) as partial:
        entries = [entry for model in models for entry in model.entries(device_by_key[model.trial.key], partial)]
        index = TraceIndex(
            task=task,
            traces=tuple(e for e in entries if e.split not in manifest.unlabelled_splits),
            unlabelled=tuple(e for e in entries if e.split in manifest.unlabelled_splits),
        )
        stage.write(partial / HERE.trace_index(task).name, index)
    for entry in entries:
        path = HERE.traces(task) / entry.file
        if path.stat().st_size <= LARGEST_TRACKED:
            stage.run.log_artifact(path)
    print(f"{recorded} traces recorded, {len(entries) - recorded} reused", flush=True)
    stage.log_metrics({"traces": len(entries), "rows": sum(entry.rows for entry in entries)})


def devices(runtime: Runtime) -> tuple[str, ...]:
    """The devices that workers may have: those of a cluster that was joined may have another than this process."""
    if not runtime.ray_address:
        return (device_of(runtime.device),)
    return ("cuda", "cpu") if runtime.device == "auto" else (runtime.device,)


if __name__ == "__main__":
    run_stage("trace", main)
