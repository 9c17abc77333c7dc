"""Attack one task's live models with TextFooler: single exit, and each early-exit criterion at its operating point."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.attacks.defences import Defence, find_defences
from pipeline.attacks.examples import describe_source, load_examples
from pipeline.attacks.records import HEADLINES, save_records, summarise
from pipeline.attacks.resources import resolve
from pipeline.errors import UnsupportedError, unknown
from pipeline.files import DATA, RUNS, read_json
from pipeline.recording import device_of, manifest
from pipeline.stage import Stage, run_stage

if TYPE_CHECKING:
    from pipeline.attacks.victim import Victim


def main(stage: Stage) -> None:
    import torch
    from tqdm import tqdm  # type: ignore[import-untyped]

    from pipeline.attacks.textfooler import QUERY_RULE, attack_examples

    params, settings = stage.params, stage.params.attack
    if stage.instance not in settings.tasks:
        raise unknown("task", stage.instance, settings.tasks, key="attack.tasks")
    task, chosen = params.task(stage.instance), settings.tasks[stage.instance]
    if task.kind == "regression":
        raise UnsupportedError(f"attack.tasks: {task.name!r} is a regression, TextFooler needs classes; take it out")
    torch.set_num_threads(params.runtime.threads)
    device = device_of(params.runtime.device)
    evaluated = read_json(Path("outputs/evaluate") / f"{task.name}.json", 1, f"run `dvc repro evaluate@{task.name}`")
    selected = read_json(Path("outputs/selected") / f"{task.name}.json", 1, "run `dvc repro finetune`")
    split = manifest(task.name)["report_splits"][0]
    defences = find_defences(settings, selected, evaluated, split)
    resources = resolve(settings.resources, device)
    examples = load_examples(task, chosen, split, settings.seed, params.runtime.hub_mirror)
    attacked = []
    for defence in defences:
        victim = _victim(task.name, defence, device)
        found = attack_examples(victim, resources, examples, seed=settings.seed, max_queries=settings.max_queries)
        shown = tqdm(found, defence.name, len(examples), disable=None if params.runtime.progress else True)
        attacked.append((defence, list(shown)))
    stage.run.log_artifact(save_records(Path("outputs/attack") / f"{task.name}.parquet", attacked))
    about = {
        "schema": 1,
        "task": task.name,
        "recipe": settings.recipe,
        "resources": resources.about,
        "comparable_with_paper": resources.stock,
        "source": describe_source(task, chosen, split),
        "examples": len(examples),
        "query_rule": QUERY_RULE,
    }
    rows = [{**defence.labels(), **summarise(records)} for defence, records in attacked]
    stage.write_json(f"outputs/attack/{task.name}.json", {**about, "rows": rows})
    for row in rows:
        name = row["defence"].replace(" ", "_")
        stage.log_metrics({f"{name}.{metric}": row[metric]["value"] for metric in HEADLINES})


def _victim(task: str, defence: Defence, device: str) -> "Victim":
    from pipeline.attacks.victim import Victim
    from pipeline.backbones.encoder import encoder_from_description
    from pipeline.data.tokens import load_tokenizer
    from pipeline.live import LiveEngine
    from pipeline.multi_exit import load_checkpoint

    model = load_checkpoint(RUNS / defence.key, encoder_from_description).to(device)
    tokenizer = load_tokenizer(DATA / task / defence.backbone / "tokenizer.json")
    return Victim(LiveEngine(model, defence.criterion, defence.threshold), tokenizer, device)


if __name__ == "__main__":
    run_stage("attack", main)
