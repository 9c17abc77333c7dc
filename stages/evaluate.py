"""Replay every criterion over one task's traces; choose on selection rows, report on report rows."""

from itertools import groupby
from pathlib import Path

from pipeline.choosing import make_rule
from pipeline.files import read_json
from pipeline.operating import SELECTION, Seeded, curves_csv, evaluate_group, merged
from pipeline.stage import Stage, run_stage
from pipeline.traces import load_trace


def main(stage: Stage) -> None:
    params = stage.params
    task = params.task(stage.instance)
    folder = Path("outputs/traces") / task.name
    entries = read_json(folder / "index.json", 1, f"run `dvc repro trace@{task.name}`")["traces"]
    splits = list(dict.fromkeys(e["split"] for e in entries if e["split"] != SELECTION))
    rule = make_rule(params.evaluate.choose.model_dump(), params.evaluate.window)
    parts = []
    for (backbone, method, multi_exit), members in groupby(
        entries, key=lambda e: (e["backbone"], e["method"], e["multi_exit"])
    ):
        seeds = [
            Seeded(seed, key, {e["split"]: load_trace(folder / e["file"]) for e in of_seed})
            for (seed, key), of_seed in groupby(members, key=lambda e: (e["seed"], e["key"]))
        ]
        part = evaluate_group(
            {"backbone": backbone, "method": method},
            seeds,
            params.evaluate.criteria if multi_exit else {},
            task.metrics,
            rule,
            report_splits=splits,
            selected_on=SELECTION if params.protocol == "holdout" else splits[0],
        )
        parts.append(part)
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


if __name__ == "__main__":
    run_stage("evaluate", main)
