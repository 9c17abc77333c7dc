"""The commands replay and diagnose, on a trace file of any model. Neither needs Torch or params.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import ArtifactError, ParamsError, UnsupportedError

if TYPE_CHECKING:
    from pipeline.evaluation.criteria import Criterion
    from pipeline.evaluation.sweep import Sweep
    from pipeline.evaluation.trace import Trace

FILE = click.argument("file", type=click.Path(path_type=Path))
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
    """Replay a criterion over a trace FILE: metrics at a threshold as JSON, a curve as CSV, or several in a figure."""
    modes = {"--threshold": threshold is not None, "--sweep": swept, "--compare": compare is not None}
    if sum(modes.values()) != 1:
        options = ", ".join(name for name, on in modes.items() if on) or "none"
        raise ParamsError(f"replay: {options} given; give one of --threshold, --sweep and --compare")
    if (criterion is None) != (compare is not None):
        raise ParamsError("replay: give --criterion with --threshold or --sweep, and not with --compare")
    if (out is None) != (compare is None):
        raise ParamsError("replay: --compare draws into --out FIGURE.svg or FIGURE.png; give both or none")
    if compare is not None and out is not None:
        _compare(file, compare.split(","), settings, metrics, fit, out)
        return
    trace, names = _load(file, metrics)
    fitted = _fit_criterion(criterion or "", _parse_settings(settings), _load_selection(fit, file, trace))
    if swept:
        click.echo(_curve(trace, fitted, names), nl=False)
    else:
        _print_json(_point(trace, fitted, _number(threshold or ""), names))


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
    """Why early exit helps or hurts on a trace FILE, as JSON; with a criterion, the rows that it loses and wins."""
    from pipeline.evaluation.diagnosis import diagnose as diagnosis
    from pipeline.evaluation.point import point_of

    if (criterion is None) != (threshold is None):
        raise ParamsError("diagnose: --criterion and --threshold belong together; give both or none")
    if (settings or fit) and criterion is None:
        raise ParamsError("diagnose: --set and --fit belong to a --criterion; give one")
    trace, names = _load(file, metrics)
    points = []
    if criterion is not None and threshold is not None:
        values = _parse_settings(settings)
        fitted = _fit_criterion(criterion, values, _load_selection(fit, file, trace))
        points.append(point_of(fitted, values, _number(threshold)))
    _print_json(diagnosis(trace, names, points).model_dump(mode="json"))


def _load(file: Path, metrics: Sequence[str]) -> tuple["Trace", tuple[str, ...]]:
    """The trace, and the metrics of its score; refuses a trace without labels and metrics that do not fit."""
    from pipeline.errors import unknown
    from pipeline.evaluation.metrics import METRICS
    from pipeline.evaluation.trace import load_trace, require_labels

    trace = load_trace(file)
    if trace.rows == 0:
        raise ArtifactError(f"{file}: holds no rows; record a split with rows")
    require_labels(trace)
    fitting: tuple[str, ...] = ("pearson", "spearman")
    if trace.kind == "classification":
        fitting = ("accuracy", "f1", "matthews") if trace.classes == 2 else ("accuracy",)
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS, key="--metric")
        if name not in fitting:
            outputs = f" of {trace.classes} classes" if trace.kind == "classification" else ""
            raise UnsupportedError(
                f"--metric {name}: has no meaning for a {trace.kind}{outputs}; use {' or '.join(fitting)}"
            )
    return trace, tuple(metrics) or (fitting if trace.kind == "regression" else ("accuracy",))


def _parse_settings(settings: Sequence[str]) -> dict[str, float]:
    """Setting to value, from NAME=VALUE pairs."""
    values = {}
    for pair in settings:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ParamsError(f"--set {pair}: is not NAME=VALUE, such as tau=0.5")
        try:
            values[name] = float(value)
        except ValueError:
            raise ParamsError(f"--set {pair}: {value!r} is not a number; give one") from None
    return values


def _load_selection(fit: Path | None, file: Path, trace: "Trace") -> "Trace | None":
    """The trace of the rows to learn from; its kind, exits and classes must be those of `trace`."""
    from pipeline.evaluation.trace import load_trace

    if fit is None:
        return None
    selection = load_trace(fit)
    for field in ("kind", "exits", "classes"):
        fitted, replayed = getattr(selection, field), getattr(trace, field)
        if fitted != replayed:
            raise ArtifactError(
                f"--fit {fit}: {field} {fitted}, but {file} has {field} {replayed}; "
                "record both with one model, on two splits"
            )
    return selection


def _fit_criterion(name: str, settings: Mapping[str, float], selection: "Trace | None") -> "Criterion":
    """A criterion, fitted on the rows of `selection` where they are given."""
    from pipeline.evaluation.criteria import make

    criterion = make(name, settings, key="--criterion")
    return criterion if selection is None else criterion.fit(selection)


def _number(threshold: str) -> float:
    try:
        value = float("inf" if threshold == "never" else threshold)
    except ValueError:
        value = float("nan")
    if not value > float("-inf"):  # JSON has no infinities, and null means `never`
        raise ParamsError(f"--threshold {threshold}: is not a number; give one, or `never`")
    return value


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

    if out.suffix not in KINDS:
        raise ParamsError(f"--out {out}: is neither .svg nor .png; name one of them")
    for name in names:
        if name not in CRITERIA:
            raise unknown("criterion", name, CRITERIA, key="--compare")
    trace, metric_names = _load(file, metrics)
    selection = _load_selection(fit, file, trace)
    values = _parse_settings(settings)
    fields = {name: {field.name for field in dataclasses.fields(CRITERIA[name])} for name in names}
    for setting in values:
        if not any(setting in field_names for field_names in fields.values()):
            raise unknown("setting", setting, set().union(*fields.values()), key="--set")
    sweeps: dict[str, Sweep] = {}
    for name in names:
        applicable = {setting: value for setting, value in values.items() if setting in fields[name]}
        sweeps[name] = sweep(trace, _fit_criterion(name, applicable, selection))
    try:
        draw(sweeps, metric_names, file.stem, out)
    except OSError as error:
        raise ArtifactError(f"--out {out}: cannot be written ({error.strerror}); name another file") from None
    click.echo(f"drawn: {out}")


def _print_json(payload: Mapping[str, Any]) -> None:
    import json

    click.echo(json.dumps(_defined(payload), indent=2, allow_nan=False))


def _defined(value: Any) -> Any:
    """Replace NaN by None, since JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _defined(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and value != value else value
