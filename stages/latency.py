"""Measure the live engine on one task, one row at a time and batched, at the operating points evaluate chose."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.criteria import CRITERIA, make
from pipeline.models.recording import device_of, manifest
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import DATA, RUNS, read_json

if TYPE_CHECKING:
    from pipeline.models.latency import Point


def main(stage: Stage) -> None:
    import torch

    params = stage.params
    torch.set_num_threads(params.runtime.threads)
    device = device_of(params.runtime.device)
    task = params.task(stage.instance).name
    evaluated = read_json(Path("outputs/evaluate") / f"{task}.json", 1, f"run `dvc repro evaluate@{task}`")
    selected = read_json(Path("outputs/selected") / f"{task}.json", 1, "run `dvc repro finetune`")
    split = manifest(task)["report_splits"][0]
    rows: list[dict[str, Any]] = []
    for group in selected["groups"]:
        if not group["multi_exit"]:
            continue
        names = {name: group[name] for name in ("backbone", "method")}
        key = group["trials"][0]["key"]
        mine = [r for r in evaluated["rows"] if r["split"] == split and all(r[n] == names[n] for n in names)]
        points = [
            (
                r["criterion"],
                make(r["criterion"], r["settings"], r["fitted"][0]),
                np.inf if r["thresholds"][0] is None else r["thresholds"][0],
            )
            for r in mine
            if r["criterion"] and CRITERIA[r["criterion"]].causal  # a bound is for replay only
        ]
        for size in (1, params.latency.batch_size):
            found = _measure(stage, group["backbone"], key, split, points, size, device)
            rows += [{**names, "key": key, "mode": f"batch {size}", **row} for row in found]
    about = {"schema": 1, "task": task, "device": _device_name(device), "threads": params.runtime.threads}
    stage.write_json(f"outputs/latency/{task}.json", {**about, "rows": rows})
    for row in rows:
        name = f"{row['backbone']}.{row['method']}.{row['criterion'] or 'full'}.{row['mode'].replace(' ', '_')}"
        stage.log_metrics({f"{name}.measured_speedup": row["measured_speedup"]})


def _measure(
    stage: Stage,
    backbone: str,
    key: str,
    split: str,
    points: "Sequence[Point]",
    size: int,
    device: str,
) -> list[dict[str, Any]]:
    from pipeline.models.encoders.encoder import encoder_from_description
    from pipeline.models.flops import encoder_flops
    from pipeline.models.latency import compare
    from pipeline.models.multi_exit import load_checkpoint
    from pipeline.tasks.text.tokens import TokenStore, by_length

    settings = stage.params.latency
    model = load_checkpoint(RUNS / key, encoder_from_description).to(device)
    store = TokenStore.open(DATA / stage.instance / backbone / f"{split}.arrow")
    generator = np.random.default_rng(0)
    sample = np.sort(generator.permutation(len(store))[: settings.rows])
    order = sample[np.concatenate(list(by_length(store.lengths[sample], size)))]
    batches = [store.batch(order[i : i + size], device) for i in range(0, len(order), size)]
    layers = np.asarray(model.exits, dtype=np.float64)
    shape = replace(model.backbone.shape(model.outputs), full_layers=0)  # as the times are: against its own full pass
    flops, full = encoder_flops(shape, store.lengths[order], layers)
    return compare(model, points, batches, layers, flops, full, settings.repeats)


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    run_stage("latency", main)
