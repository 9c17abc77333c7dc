"""Record every exit of one task's selected models on every split; existing traces are reused."""

from pipeline.layout import HERE
from pipeline.results import Selected, TraceIndex
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import whole_folder
from pipeline.tasks.splits import SELECTION
from pipeline.tasks.stores import manifest_of
from pipeline.training.code import code_key, recording_code


def main(stage: Stage) -> None:
    import torch

    from pipeline.models.device import device_of
    from pipeline.models.trace_cache import Recorder

    task, runtime = stage.params.task(stage.instance).name, stage.params.runtime
    torch.set_num_threads(runtime.threads)
    manifest = manifest_of(task)
    selected = Selected.read(HERE.selected(task), "run `dvc repro finetune`")
    recorder = Recorder(manifest, HERE, device_of(runtime.device), code_key(recording_code(manifest.modality)))
    splits = (SELECTION, *manifest.report_splits, *manifest.unlabelled_splits)
    with whole_folder(HERE.traces(task)) as partial:
        entries = [
            recorder.entry(group, trial, split, partial)
            for group in selected.groups
            for trial in group.trials
            for split in splits
        ]
        index = TraceIndex(
            task=task,
            traces=tuple(e for e in entries if e.split not in manifest.unlabelled_splits),
            unlabelled=tuple(e for e in entries if e.split in manifest.unlabelled_splits),
        )
        stage.write(partial / HERE.trace_index(task).name, index)
    print(f"{recorder.recorded} traces recorded, {len(entries) - recorder.recorded} reused", flush=True)
    stage.log_metrics({"traces": len(entries), "rows": sum(entry.rows for entry in entries)})


if __name__ == "__main__":
    run_stage("trace", main)
