"""Record every exit of every selected model of one task, once per split."""

from pathlib import Path
from typing import Any

from pipeline.evaluation.trace import save_trace
from pipeline.models.recording import device_of, manifest, record_trace
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import read_json, whole_folder


def main(stage: Stage) -> None:
    import torch

    params = stage.params
    torch.set_num_threads(params.runtime.threads)
    device = device_of(params.runtime.device)
    task = params.task(stage.instance)
    folder = Path("outputs/traces") / task.name
    selected = read_json(Path("outputs/selected") / f"{task.name}.json", 1, "run `dvc repro finetune`")
    about_data = manifest(task.name)
    # Splits without labels have a list of their own: whoever computes scores never meets one.
    unlabelled = about_data["unlabelled_splits"]
    splits = ["selection", *about_data["report_splits"], *unlabelled]
    index: dict[str, list[dict[str, Any]]] = {"traces": [], "unlabelled": []}
    with whole_folder(folder) as partial:
        for group in selected["groups"]:
            about = {name: group[name] for name in ("backbone", "method", "multi_exit")}
            for trial in group["trials"]:
                for split in splits:
                    trace = record_trace(task, group["backbone"], trial["key"], split, device)
                    file = f"{trial['key']}.{split}.safetensors"
                    sha256 = save_trace(trace, partial / file)
                    entry = {**about, **trial, "split": split, "file": file, "sha256": sha256, "rows": trace.rows}
                    index["unlabelled" if split in unlabelled else "traces"].append(entry)
        stage.write_json(partial / "index.json", {"schema": 1, **index})
    entries = [*index["traces"], *index["unlabelled"]]
    stage.log_metrics({"traces": len(entries), "rows": sum(entry["rows"] for entry in entries)})


if __name__ == "__main__":
    run_stage("trace", main)
