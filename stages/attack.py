"""Attack one task's live models: single exit, and each early-exit criterion at its operating point."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.attacks.defences import Defence, find_defences
from pipeline.attacks.examples import describe_source, load_examples
from pipeline.attacks.needs import check, describe
from pipeline.attacks.pooled import answer
from pipeline.attacks.records import HEADLINES, Record, paired, save_records, summarise
from pipeline.attacks.setting import QUERY_RULE, Setting
from pipeline.attacks.shards import FOLDER, POOL_RUNNER, RUNNER, Comparison, Shard
from pipeline.attacks.view import view
from pipeline.errors import UnsupportedError, unknown
from pipeline.evaluation.intervals import proportion_interval
from pipeline.models.recording import manifest
from pipeline.running.ray.tune import fan_out
from pipeline.running.stage import Stage, run_stage
from pipeline.storage import read_json


def main(stage: Stage) -> None:
    params, settings = stage.params, stage.params.attack
    if stage.instance not in settings.tasks:
        raise unknown("task", stage.instance, settings.tasks, key="attack.tasks")
    task, chosen = params.task(stage.instance), settings.tasks[stage.instance]
    if task.kind == "regression":
        raise UnsupportedError(f"attack.tasks: {task.name!r} is a regression, attacks need classes; take it out")
    evaluated = read_json(Path("outputs/evaluate") / f"{task.name}.json", 1, f"run `dvc repro evaluate@{task.name}`")
    selected = read_json(Path("outputs/selected") / f"{task.name}.json", 1, "run `dvc repro finetune`")
    split = manifest(task.name)["report_splits"][0]
    defences = find_defences(settings, selected, evaluated, split)
    check(settings.resources, settings.recipe)
    examples = load_examples(task, chosen, split, settings.seed, params.runtime.hub_mirror)
    setting = Setting(settings.recipe, settings.goal, settings.attacker, settings.seed, settings.max_queries)
    comparison = Comparison(task.name, examples, defences, setting, settings.resources)
    _run(stage, comparison)
    attacked = comparison.records()
    # Texts that slow a model down were not made to change its answer.
    pooled = _ask_pools(stage, comparison, attacked) if setting.goal == "misclassify" else [[] for _ in defences]
    stage.run.log_artifact(save_records(Path("outputs/attack") / f"{task.name}.parquet", attacked))
    stage.write_text(f"outputs/attack/{task.name}.html", view(task, attacked))
    whole = (setting.recipe, setting.goal, setting.max_queries) == ("textfooler", "misclassify", None)
    stock = settings.resources == "stock" and whole
    about = {
        "schema": 1,
        "task": task.name,
        "recipe": setting.recipe,
        "goal": setting.goal,
        "attacker": setting.attacker,
        "max_queries": setting.max_queries,
        "resources": describe(settings.resources, settings.recipe),
        "comparable_with_paper": stock,
        "source": describe_source(task, chosen, split),
        "examples": len(examples),
        "query_rule": QUERY_RULE,
    }
    rows = [
        {**defence.labels(), **summarise(records), "pooled_accuracy": proportion_interval(sum(right), len(right))}
        | {"against_first": paired(records, attacked[0][1]) if at and setting.goal == "misclassify" else None}
        for at, ((defence, records), right) in enumerate(zip(attacked, pooled, strict=True))
    ]
    stage.write_json(f"outputs/attack/{task.name}.json", {**about, "rows": rows})
    for row in rows:
        name = row["defence"].replace(" ", "_")
        stage.log_metrics({f"{name}.{metric}": row[metric]["value"] for metric in HEADLINES})


def _run(stage: Stage, comparison: Comparison) -> None:
    """Attack the shards that are not done, and say how far it is."""
    runtime = stage.params.runtime
    todo = list(comparison.unfinished(runtime.device, runtime.threads))
    total = len(comparison.keys)
    print(f"{len(todo)} shards to attack, {total - len(todo)} done before", flush=True)
    left = len(todo)

    def done(shard: Shard, attacked: Any) -> None:
        nonlocal left
        left -= 1
        if runtime.progress:
            print(f"[{total - left}/{total}] {len(shard.examples)} examples x {attacked} defences", flush=True)

    fan_out(todo, runner=RUNNER, root=FOLDER / comparison.task, runtime=runtime, done=done)


def _ask_pools(
    stage: Stage, comparison: Comparison, attacked: Sequence[tuple[Defence, Sequence[Record]]]
) -> list[list[bool]]:
    """Each defence's answers to the texts that were found against all, asked once."""
    runtime = stage.params.runtime
    found = comparison.pools(attacked, runtime.device, runtime.threads)
    todo = [pool for pool in found if answer(pool) is None]
    fan_out(todo, runner=POOL_RUNNER, root=FOLDER / comparison.task, runtime=runtime, done=lambda pool, _: None)
    return [answer(pool) or [] for pool in found]


if __name__ == "__main__":
    run_stage("attack", main)
