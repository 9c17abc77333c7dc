"""The commands replay and diagnose, on a trace of any model: a file, or a task. Neither needs Torch or params.yaml."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.output import print_json, refuse_output, writing
from pipeline.commands.trace_input import (
    fit_criterion,
    load,
    load_selection,
    named,
    number,
    parse_settings,
    trace_file,
    warn_beyond,
)
from pipeline.errors import ParamsError

if TYPE_CHECKING:
    from pipeline.evaluation.criteria import Criterion
    from pipeline.evaluation.sweep import Sweep
    from pipeline.evaluation.trace import Trace

FILE = click.argument("file", metavar="FILE|TASK", type=click.Path(path_type=Path))
CRITERION = click.option("--criterion", metavar="NAME", help="Exit criterion; `list criteria` names them.")
THRESHOLD = click.option("--threshold", metavar="NUMBER", help="Threshold; `never` runs all layers.")
SETTINGS = click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting, such as tau=0.5.")
FIT = click.option("--fit", type=click.Path(path_type=Path), metavar="FILE", help="Selection rows to learn from.")
METRIC = click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, help="Default: accuracy, or pearson and spearman."
)


@click.command()
@FILE
@CRITERION
@THRESHOLD
@SETTINGS
@METRIC
@FIT
@click.option("--sweep", "swept", is_flag=True, help="Print the whole curve as CSV.")
@click.option("--compare", metavar="NAME,NAME", help="Draw the curves of several criteria; needs --out.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FIGURE", help="File to draw into: .svg or .png.")
def replay(
    file: Path,
    criterion: str | None,
    threshold: str | None,
    settings: tuple[str, ...],
    metrics: tuple[str, ...],
    fit: Path | None,
    swept: bool,
    compare: str | None,
    out: Path | None,
) -> None:
    """Replay a criterion over a trace: metrics at a threshold as JSON, a curve as CSV, or several in a figure.

    The trace is a FILE, or that of a TASK's report rows through the model with early exits that it prefers.
    """
    modes = {"--threshold": threshold is not None, "--sweep": swept, "--compare": compare is not None}
    if sum(modes.values()) != 1:
        options = ", ".join(name for name, on in modes.items() if on) or "none"
        raise ParamsError(f"replay: {options} given; give one of --threshold, --sweep and --compare")
    if (criterion is None) != (compare is not None):
        raise ParamsError("replay: give --criterion with --threshold or --sweep, and not with --compare")
    if (out is None) != (compare is None):
        raise ParamsError("replay: --compare draws into --out FIGURE.svg or FIGURE.png; give both or none")
    file = trace_file(file)
    if compare is not None and out is not None:
        _compare(file, compare.split(","), settings, metrics, fit, out)
        return
    trace, names = load(file, metrics)
    fitted = fit_criterion(criterion or "", parse_settings(settings), load_selection(fit, file, trace), fit)
    at = None if threshold is None else number(threshold)
    with named(file):
        if at is None:
            click.echo(_curve(trace, fitted, names), nl=False)
        else:
            point = _point(trace, fitted, at, names)
            warn_beyond(fitted, trace, at)
            print_json(point)


@click.command()
@FILE
@CRITERION
@THRESHOLD
@SETTINGS
@METRIC
@FIT
def diagnose(
    file: Path,
    criterion: str | None,
    threshold: str | None,
    settings: tuple[str, ...],
    metrics: tuple[str, ...],
    fit: Path | None,
) -> None:
    """Why early exit helps or hurts on a trace, as JSON; with a criterion, the rows that it loses and wins.

    The trace is a FILE, or that of a TASK's report rows through the model with early exits that it prefers.
    """
    from pipeline.evaluation.diagnosis import diagnose as diagnosis
    from pipeline.evaluation.point import point_of

    if (criterion is None) != (threshold is None):
        raise ParamsError("diagnose: --criterion and --threshold belong together; give both or none")
    if (settings or fit) and criterion is None:
        raise ParamsError("diagnose: --set and --fit belong to a --criterion; give one")
    file = trace_file(file)
    trace, names = load(file, metrics)
    points = []
    if criterion is not None and threshold is not None:
        values = parse_settings(settings)
        fitted = fit_criterion(criterion, values, load_selection(fit, file, trace), fit)
        points.append(point_of(fitted, values, number(threshold)))
    with named(file):
        found = diagnosis(trace, names, points).model_dump(mode="json")
    if criterion is not None and threshold is not None:
        warn_beyond(fitted, trace, number(threshold))
    print_json(found)


def _point(trace: "Trace", criterion: "Criterion", threshold: float, metrics: tuple[str, ...]) -> dict[str, Any]:
    import dataclasses

    import numpy as np

    from pipeline.evaluation.sweep import sweep

    point = sweep(trace, criterion, np.array([threshold]))
    values = {name: float(value[0]) for name, value in point.metrics(metrics).items()}
    return {
        "criterion": criterion.name,
        "settings": dataclasses.asdict(criterion),
        "threshold": None if np.isinf(threshold) else threshold,
        "rows": trace.rows,
        "score": values.pop("score"),
        "metrics": values,
        "layer_speedup": float(point.layer_speedup[0]),
        "flop_speedup": float(point.flop_speedup[0]),
        "exits": point.exit_counts[0].tolist(),
    }


def _curve(trace: "Trace", criterion: "Criterion", metrics: tuple[str, ...]) -> str:
    """Every setting of a criterion as CSV; threshold `inf` is the full model, `nan` a metric that is not defined."""
    import csv
    import io

    from pipeline.evaluation.sweep import sweep

    swept = sweep(trace, criterion)
    scores = swept.metrics(metrics)
    columns = ["score", *metrics] if len(metrics) > 1 else [*metrics]
    table = [swept.thresholds, *(scores[name] for name in columns), swept.layer_speedup, swept.flop_speedup]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["threshold", *columns, "layer_speedup", "flop_speedup"])
    writer.writerows([f"{value:.10g}" for value in row] for row in zip(*table, strict=True))
    return text.getvalue()


def _compare(
    file: Path, names: Sequence[str], settings: Sequence[str], metrics: Sequence[str], fit: Path | None, out: Path
) -> None:
    """Draw several criteria over one trace; a setting applies to each criterion that has it."""
    import dataclasses

    from pipeline.errors import unknown
    from pipeline.evaluation.criteria import CRITERIA
    from pipeline.evaluation.sweep import sweep
    from pipeline.report.replayed import KINDS, draw

    refuse_output(out, KINDS)
    for name in names:
        if name not in CRITERIA:
            raise unknown("criterion", name, CRITERIA, key="--compare")
    trace, metric_names = load(file, metrics)
    selection = load_selection(fit, file, trace)
    values = parse_settings(settings)
    fields = {name: {field.name for field in dataclasses.fields(CRITERIA[name])} for name in names}
    for setting in values:
        if not any(setting in field_names for field_names in fields.values()):
            raise unknown("setting", setting, set().union(*fields.values()), key="--set")
    sweeps: dict[str, Sweep] = {}
    for name in names:
        applicable = {setting: value for setting, value in values.items() if setting in fields[name]}
        fitted = fit_criterion(name, applicable, selection, fit)
        with named(file):
            sweeps[name] = sweep(trace, fitted)
    with writing(out):
        draw(sweeps, metric_names, file.stem, out)
    click.echo(f"drawn: {out}")
