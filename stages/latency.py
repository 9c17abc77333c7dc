"""Time the live engines on one task, one row at a time and in batches, at the operating points of evaluate."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.evaluation.point import read_with_points
from pipeline.layout import HERE
from pipeline.results import Evaluated, Latency, LatencyRow, Selected
from pipeline.running.progress import Bar
from pipeline.running.ray.jobs import run_alone
from pipeline.running.stage import Stage, run_stage
from pipeline.tasks.stores import manifest_of
from pipeline.training.code import code_key, recording_code

if TYPE_CHECKING:
    from pipeline.params import Params

UNSTEADY = 0.1
"""Share by which repeats of the same work may differ without a word."""


def unasked(params: "Params", instance: str) -> bool:
    task = params.task(instance).name
    if task in params.latency.tasks:
        return False
    Latency(task=task, measured=None).write(HERE.latency(task))
    return True


def main(stage: Stage) -> None:
    params, task = stage.params, stage.params.task(stage.instance).name
    settings, runtime = params.latency, params.runtime
    evaluated = read_with_points(Evaluated, HERE.evaluated(task), f"run `dvc repro evaluate@{task}`")
    selected = Selected.read(HERE.selected(task), "run `dvc repro finetune`")
    manifest = manifest_of(task)
    from pipeline.models.latency import RUNNER, Timing, time_models  # imports Torch
    from pipeline.models.own_traces import Choosing

    timing = Timing(
        manifest,
        selected,
        evaluated,
        manifest.report_splits[0],
        rows=settings.rows,
        sizes=settings.sizes,
        repeats=settings.repeats,
        threads=None if settings.threads is None else tuple(settings.threads),
        usual=runtime.threads,
        device=runtime.device,
        node=settings.node,
        engines=tuple(settings.engines),
        choosing=Choosing.of(params.evaluate, params.window(manifest.modality), params.protocol),
        code=code_key(recording_code(manifest.modality)),
    )
    counts = len(timing.threads or (timing.usual,))
    if settings.node is None:
        models = sum(group.multi_exit for group in selected.groups)
        with Bar("timings", models * counts * len(timing.sizes), show=runtime.progress) as bar:
            measured = time_models(timing, bar.step)
    else:
        measured = run_alone(timing, settings.node, runner=RUNNER, root=HERE.outputs, runtime=runtime)
    stage.write(HERE.latency(task), Latency(task=task, measured=measured))
    if warning := unsteady(task, measured.rows):
        print(warning, flush=True)
    for row in measured.rows:
        stage.log_row(
            {
                **{"backbone": row.backbone, "method": row.method, "criterion": row.point.name},
                **{"mode": mode_of(row, counts > 1), "threads": row.threads},
                **{"threshold": row.point.threshold, "device": measured.device},
            },
            {"measured_speedup": row.measured_speedup, "ms_per_example": row.ms_per_example},
            keys=[row.key],
        )


def unsteady(task: str, rows: Iterable[LatencyRow]) -> str:
    """A line where the repeats of a full pass differ by more than `UNSTEADY`, on the one that differs most."""
    full = [row for row in rows if row.point.criterion is None and min(row.repeats_ms) > 0]
    most = max(full, key=_spread, default=None)
    if most is None or _spread(most) <= UNSTEADY:
        return ""
    return (
        f"{task}: repeats of the full pass differ by {_spread(most):.0%} ({most.backbone}/{most.method}, {most.mode}); "
        "let the machine do nothing else, or raise latency.repeats"
    )


def _spread(row: LatencyRow) -> float:
    return max(row.repeats_ms) / min(row.repeats_ms) - 1


def mode_of(row: LatencyRow, several: bool) -> str:
    """The setting of a row in a run's name; threads where there are several numbers of them."""
    engine = "" if (row.engine, row.precision) == ("pytorch", "float32") else f" {row.engine}-{row.precision}"
    return f"{row.mode}{f' threads {row.threads}' if several else ''}{engine}"


if __name__ == "__main__":
    run_stage("latency", main, unasked=unasked)
