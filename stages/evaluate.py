"""Replay every criterion over one task's traces; choose on selection rows, report on report rows; predict the rest."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.evaluation.blocks import set_threads
from pipeline.evaluation.choosing import make_rule
from pipeline.evaluation.group import SELECTION, Evaluation, Seeded, curves_csv, evaluate_group, merged
from pipeline.evaluation.trace import Trace, load_trace
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import read_json, whole_folder
from pipeline.tasks.predictions import PREDICTIONS, write_predictions

Entries = Sequence[Mapping[str, Any]]


def main(stage: Stage) -> None:
    params = stage.params
    set_threads(params.runtime.threads)
    task = params.task(stage.instance)
    folder = Path("outputs/traces") / task.name
    index = read_json(folder / "index.json", 1, f"run `dvc repro trace@{task.name}`")
    unlabelled: Entries = index["unlabelled"]
    parts, files = [], []
    with whole_folder(PREDICTIONS / task.name) as partial:
        for (backbone, method, multi_exit), members in groupby(
            index["traces"], key=lambda e: (e["backbone"], e["method"], e["multi_exit"])
        ):
            labels = {"backbone": backbone, "method": method}
            seeds = [
                Seeded(seed, key, _load(folder, list(of_seed)))
                for (seed, key), of_seed in groupby(members, key=lambda e: (e["seed"], e["key"]))
            ]
            parts.append(_evaluated(stage, labels, seeds, multi_exit))
            if unlabelled:
                others = {s.key: _load(folder, [e for e in unlabelled if e["key"] == s.key]) for s in seeds}
                files += write_predictions(partial, task, parts[-1].rows, seeds, others)
        stage.write_json(partial / "index.json", {"schema": 1, "task": task.name, "files": files})
    found = merged(parts)
    about = {"schema": 1, "task": task.name, "kind": task.kind, "metrics": list(task.metrics)}
    setting = {"protocol": params.protocol} | {
        "window": list(params.evaluate.window),
        "choose": params.evaluate.choose.model_dump(),
    }
    stage.write_json(f"outputs/evaluate/{task.name}.json", {**about, **setting, **found.stored()})
    stage.write_text(f"outputs/evaluate/{task.name}.curves.csv", curves_csv(found.curves))
    for row in found.rows:
        name = f"{row['backbone']}.{row['method']}.{row['criterion'] or 'full'}.{row['split']}"
        stage.log_metrics({f"{name}.score": row["score"]["median"], f"{name}.speedup": row["layer_speedup"]["median"]})


def _load(folder: Path, entries: Entries) -> dict[str, Trace]:
    return {entry["split"]: load_trace(folder / entry["file"]) for entry in entries}


def _evaluated(stage: Stage, labels: Mapping[str, str], seeds: list[Seeded], multi_exit: bool) -> Evaluation:
    params = stage.params
    splits = [split for split in seeds[0].traces if split != SELECTION]
    return evaluate_group(
        labels,
        seeds,
        params.evaluate.criteria if multi_exit else {},
        params.task(stage.instance).metrics,
        make_rule(params.evaluate.choose.model_dump(), params.evaluate.window),
        report_splits=splits,
        selected_on=SELECTION if params.protocol == "holdout" else splits[0],
    )


if __name__ == "__main__":
    run_stage("evaluate", main)
