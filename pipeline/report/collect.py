"""Read every stored result that today's params name."""

from pipeline.layout import HERE, Workspace
from pipeline.params import Params
from pipeline.report.stored import Stored, TaskResults, curves_of
from pipeline.results import Attack, Evaluated, Latency, Selected, Simulation, Trials, read_curves
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
    return TaskResults(
        evaluated=Evaluated.read(workspace.evaluated(name), evaluate),
        selected=Selected.read(workspace.selected(name), FINETUNE),
        curves=tuple(curves_of(read_curves(workspace.curves(name), evaluate))),
        latency=Latency.read(workspace.latency(name), f"run `dvc repro latency@{name}`").measured,
        attacks=Attack.read(workspace.attack(name), f"run `dvc repro attack@{name}`").attacked,
        demo=isinstance(task.source, DemoSource),
        train_rows=task.rows.train,
    )
