"""Attack one task's live models: the single exit, and each criterion at its operating point."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.attacks.comparison import Workers
from pipeline.attacks.examples import attacked_splits
from pipeline.attacks.records import HEADLINES, save_records
from pipeline.attacks.run import Attacks, attack_task
from pipeline.attacks.view import view
from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE
from pipeline.results import Attack, Attacked, Evaluated, Selected
from pipeline.running.local_files import attacked_with
from pipeline.running.ray.jobs import fan_out
from pipeline.running.stage import Stage, run_stage
from pipeline.running.storage import storage_of
from pipeline.storage import write_text
from pipeline.tasks.stores import manifest_of
from pipeline.tasks.task import Task

if TYPE_CHECKING:
    from pipeline.params import Params


def unasked(params: "Params", instance: str) -> bool:
    task = params.task(instance)
    if task.name in params.attack.tasks:
        return False
    write(task, (), {})
    return True


def main(stage: Stage) -> None:
    params, runtime = stage.params, stage.params.runtime
    task = params.task(stage.instance)
    evaluated = read_with_points(Evaluated, HERE.evaluated(task.name), f"run `dvc repro evaluate@{task.name}`")
    selected = Selected.read(HERE.selected(task.name), "run `dvc repro finetune`")
    reported = manifest_of(task.name).report_splits
    workers = Workers(
        partial(fan_out, runtime=runtime),
        runtime.device,
        runtime.threads,
        storage_of(runtime).recover,
        runtime.progress,
    )
    files = attacked_with(params, task, HERE)
    attacked, attacks = [], {}
    for split in attacked_splits(params.attack.tasks[task.name], reported):
        one, attacks[split] = attack_task(
            task, params.attack, selected, evaluated, split, reported[0], workers, runtime.hub_mirror
        )
        attacked.append(one.model_copy(update={"files": files}))
    for path in write(task, attacked, attacks):
        stage.run.log_artifact(path)
    for one in attacked:
        for row in one.rows:
            settings = {"backbone": row.backbone, "method": row.method, "criterion": row.point.name, "split": one.split}
            settings |= {"recipe": one.recipe, "goal": one.goal, "engine": one.engine}
            mode = {"mode": "adaptive"} if row.scores == "deepest" else {}
            stage.log_row(
                settings | {"threshold": row.point.threshold} | mode,
                {headline: getattr(row, headline).value for headline in HEADLINES},
                keys=[row.key],
            )


def write(task: Task, attacked: Sequence[Attacked], attacks: Mapping[str, Attacks]) -> Sequence[Path]:
    """Write the stage's outputs, also for a task that is not attacked."""
    return (
        save_records(HERE.attack_records(task.name), attacks),
        write_text(HERE.attack_page(task.name), view(task, attacks)),
        Attack(task=task.name, attacked=tuple(attacked)).write(HERE.attack(task.name)),
    )


if __name__ == "__main__":
    run_stage("attack", main, unasked=unasked)
