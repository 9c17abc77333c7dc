"""The command rescore: every task of a stored experiment under criteria or metrics that came later; traces alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.output import print_json
from pipeline.commands.trace_input import parse_settings, refuse_metrics
from pipeline.errors import ArtifactError, ParamsError, unknown

if TYPE_CHECKING:
    from pipeline.evaluation.choosing import Chooser
    from pipeline.layout import Workspace
    from pipeline.results import Evaluated, Row

COLUMNS = ("task", "model", "split", "criterion", "score", "layers", "flops", "rule")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--criterion", "criteria", metavar="NAME", multiple=True, help="Exit criterion; more than one is fine.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting of the criteria that have it.")
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="Default: those of the stored results.")
@click.option("--task", "tasks", metavar="NAME", multiple=True, help="Default: every evaluated task.")
@click.option("--json", "as_json", is_flag=True, help="Print a result as evaluate stores it for each task.")
@click.option("--to", type=click.Path(path_type=Path), metavar="NEW", help="A new folder for such a file of each task.")
def rescore(
    folder: Path,
    criteria: tuple[str, ...],
    settings: tuple[str, ...],
    metrics: tuple[str, ...],
    tasks: tuple[str, ...],
    as_json: bool,
    to: Path | None,
) -> None:
    """Evaluate the stored traces of an experiment in FOLDER under other criteria or metrics.

    Thresholds are chosen as its results say, on the selection rows. No model is loaded, and nothing in FOLDER changes.
    """
    from pipeline.layout import Workspace

    if not criteria and not metrics:
        raise ParamsError("rescore: give a --criterion or a --metric that the stored results lack")
    if to is not None and to.exists():
        raise ParamsError(f"--to {to}: is there already, and results are not overwritten; name a new folder")
    here = Workspace(folder)
    names = evaluated_tasks(here, tasks)
    values = settings_of(criteria, parse_settings(settings))
    found = [rescored(here, name, values, metrics) for name in names]
    if to is not None:
        for one in found:
            one.write(to / f"{one.task}.json")
        click.echo(f"written   {to}: {', '.join(names)}")
    elif as_json:
        import json

        print_json({one.task: json.loads(one.text()) for one in found})
    else:
        click.echo("\n".join(table(found)))


def evaluated_tasks(here: "Workspace", wanted: Sequence[str]) -> list[str]:
    """The tasks whose stored results are in a folder.

    Raises:
        ArtifactError: there are none.
        ParamsError: one that is wanted is not among them.
    """
    folder = here.evaluated("task").parent
    names = sorted(path.stem for path in folder.glob("*.json"))
    if not names:
        raise ArtifactError(f"{folder}: no results of evaluate; run `dvc repro`, or `dvc pull` for those of a clone")
    for name in wanted:
        if name not in names:
            raise unknown("task", name, names, key="--task")
    return list(wanted) or names


def settings_of(criteria: Sequence[str], given: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Each criterion with those of the settings that it has."""
    import dataclasses

    from pipeline.evaluation.criteria import CRITERIA, make

    values: dict[str, dict[str, float]] = {}
    for name in criteria:
        if name not in CRITERIA:
            raise unknown("criterion", name, CRITERIA, key="--criterion")
        fields = {f.name for f in dataclasses.fields(CRITERIA[name]) if not f.metadata.get("fitted")}
        values[name] = {setting: value for setting, value in given.items() if setting in fields}
        make(name, values[name], key="--criterion")
    for setting in given:
        if not any(setting in own for own in values.values()):
            raise ParamsError(f"--set {setting}: no setting of {', '.join(criteria) or 'a --criterion'}; take it out")
    return values


def rescored(
    here: "Workspace", task: str, criteria: Mapping[str, Mapping[str, float]], metrics: Sequence[str]
) -> "Evaluated":
    """A task's results under other criteria, or its own criteria under other metrics.

    Raises:
        ArtifactError: a stored file is missing, of another version, or not the one that it should be.
        UnsupportedError: a criterion that applies to no model of the task, or a metric without a meaning for it.
    """
    from pipeline.evaluation.group import evaluate_group, merged
    from pipeline.evaluation.groups import load_groups
    from pipeline.results import Evaluated, TraceIndex

    remedy = f"run `dvc repro evaluate@{task}` in {here.root}"
    stored = Evaluated.read(here.evaluated(task), remedy)
    index = TraceIndex.read(here.trace_index(task), f"run `dvc repro trace@{task}` in {here.root}")
    rows = {row.criterion: row.points[0].settings for row in stored.rows if row.criterion is not None}
    chosen = criteria or rows
    names = tuple(dict.fromkeys(metrics)) or stored.metrics
    chooser = chooser_of(stored)
    parts = []
    for group in load_groups(index, here.traces(task)):
        trace = group.seeds[0].traces[group.report_splits[0]]
        refuse_metrics(metrics, trace.kind, trace.classes)
        own = chooser.for_model(group.backbone, group.method, stored.costs)
        parts.append(evaluate_group(group, chosen, names, own, stored.protocol))
    every = merged(parts)
    refuse_absent(task, criteria, every.rows)
    found = {"metrics": names, "rows": every.rows, "exits": every.exits, "diagnosis": every.diagnosis}
    return Evaluated(**{**dict(stored), **found})


def refuse_absent(task: str, criteria: Mapping[str, Mapping[str, float]], rows: "Sequence[Row]") -> None:
    """Raise UnsupportedError where a criterion that was asked for has no row."""
    from pipeline.errors import UnsupportedError
    from pipeline.evaluation.criteria import CRITERIA

    for name in set(criteria) - {row.criterion for row in rows}:
        reads = CRITERIA[name].reads
        why = "class probabilities" if reads == "logits" else f"the channel {reads!r}"
        raise UnsupportedError(f"--criterion {name}: reads {why}, which no model of {task} has; leave the task out")


def chooser_of(stored: "Evaluated") -> "Chooser":
    """The chooser that stored results name."""
    from pipeline.evaluation.choosing import make_chooser

    return make_chooser(stored.choosing.model_dump(exclude={"window", "machine"}), stored.choosing.window)


def table(found: "Sequence[Evaluated]") -> Iterator[str]:
    """Lines of a table: medians over seeds, and what chose the threshold."""
    cells = [COLUMNS, *(_cells(one.task, row) for one in found for row in one.rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(COLUMNS))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(task: str, row: "Row") -> tuple[str, ...]:
    score = "undefined" if row.score.median is None else f"{row.score.median:.4f}"
    speeds = ("" if speed.median is None else f"{speed.median:.2f}x" for speed in (row.layer_speedup, row.flop_speedup))
    rule = f"{row.rule} on {row.selected_on}" + ("" if row.in_window else ", not met")
    return (
        task,
        f"{row.backbone}/{row.method}",
        row.split,
        row.criterion or "all layers",
        score,
        *speeds,
        rule if row.criterion else "",
    )
