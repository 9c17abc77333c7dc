"""Read every stored result that today's params name."""

from pipeline.errors import ArtifactError
from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE, Workspace
from pipeline.params import Params
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import (
    Attack,
    DefenceRow,
    Evaluated,
    Latency,
    LatencyRow,
    Row,
    Selected,
    Simulation,
    Trials,
    curves_of,
    read_curves,
)
from pipeline.tasks.task import DemoSource

FINETUNE = "run `dvc repro finetune`"


def collect(params: Params, workspace: Workspace = HERE) -> Stored:
    """Read what finetune, evaluate, latency and attack left of every task, and what simulate left.

    Raises:
        ArtifactError: a file is missing, cut short, of another schema or without a field: says what to run.
    """
    return Stored(
        tasks=tuple(_task(params, workspace, name) for name in params.tasks),
        trials={trial.key: trial for trial in Trials.read(workspace.trials_table, FINETUNE).trials},
        simulation=Simulation.read(workspace.simulation, "run `dvc repro simulate`"),
    )


def _task(params: Params, workspace: Workspace, name: str) -> TaskResults:
    task = params.task(name)
    evaluate = f"run `dvc repro evaluate@{name}`"
    evaluated = read_with_points(Evaluated, workspace.evaluated(name), evaluate)
    results = TaskResults(
        evaluated=evaluated,
        selected=Selected.read(workspace.selected(name), FINETUNE),
        curves=tuple(curves_of(read_curves(workspace.curves(name), evaluated, evaluate))),
        latency=read_with_points(Latency, workspace.latency(name), f"run `dvc repro latency@{name}`").measured,
        attacks=read_with_points(Attack, workspace.attack(name), f"run `dvc repro attack@{name}`").attacked,
        demo=isinstance(task.source, DemoSource),
        train_rows=task.rows.train,
    )
    _refuse_other_models(results)
    return results


def _refuse_other_models(task: TaskResults) -> None:
    """Raise ArtifactError where a row rests on a model that is not selected: models were selected anew since."""
    rows: list[tuple[Row | LatencyRow | DefenceRow, tuple[str, ...]]] = [(row, row.keys) for row in task.rows]
    rows += [(row, (row.key,)) for attack in task.attacks for row in attack.rows]
    rows += [(row, (row.key,)) for row in (task.latency.rows if task.latency else ())]
    for row, used in rows:
        selected = {trial.key for trial in task.group(row).trials}
        for key in used:
            if key not in selected:
                raise ArtifactError(
                    f"results of {task.name}: trial {key} of {row.backbone}/{row.method} is not selected, and a row "
                    "rests on it; run `dvc repro`"
                )
