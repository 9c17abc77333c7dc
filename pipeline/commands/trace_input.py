"""What replay and diagnose are given: a trace file or a task, settings, a threshold, and rows to learn from."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ArtifactError, ParamsError, PipelineError, UnsupportedError, listed, unknown
from pipeline.layout import HERE

if TYPE_CHECKING:
    from pipeline.evaluation.criteria import Criterion
    from pipeline.evaluation.trace import Trace
    from pipeline.results import TraceEntry

SHOWN = 6
"""Files that a message names."""


def trace_file(given: Path) -> Path:
    """The file of a trace; for the name of a task, that of the report rows through a model with early exits.

    The model is the one that the task's selection rows prefer, else the first; stderr says which.

    Raises:
        ParamsError: no task of this name has traces here, and others have.
        ArtifactError: the task's results are damaged, or none of its models has early exits.
    """
    names = sorted(path.parent.name for path in HERE.traces("*").parent.glob("*/index.json"))
    if given.is_file() or given.name != str(given) or given.suffix or not names:
        return given
    if str(given) not in names:
        raise unknown("task", str(given), names, key="FILE|TASK")
    entry = _preferred(str(given))
    path = HERE.traces(str(given)) / entry.file
    said = f"{entry.backbone}, {entry.method}, seed {entry.seed}, rows of {entry.split}"
    print(f"{given}: taken is {path} ({said})", file=sys.stderr)
    return path


def _preferred(task: str) -> "TraceEntry":
    from pipeline.evaluation.preferred import preferred
    from pipeline.results import Evaluated, TraceIndex, curves_of, read_curves
    from pipeline.results.traces import SELECTION

    index = TraceIndex.read(HERE.trace_index(task), f"run `dvc repro trace@{task}`")
    early = [entry for entry in index.traces if entry.multi_exit and entry.split != SELECTION]
    if not early:
        methods = listed(dict.fromkeys(entry.method for entry in index.traces)) or "none"
        raise ArtifactError(f"{task}: none of its models has early exits ({methods}); add joint to methods")
    if not HERE.evaluated(task).is_file():
        return early[0]
    remedy = f"run `dvc repro evaluate@{task}`"
    evaluated = Evaluated.read(HERE.evaluated(task), remedy)
    curves = [*curves_of(read_curves(HERE.curves(task), evaluated, remedy))]
    best = preferred(evaluated.rows, curves, early[0].split)
    keys = () if best is None else best.keys
    return next((entry for entry in early if entry.key in keys and entry.split == early[0].split), early[0])


def load(file: Path, metrics: Sequence[str]) -> tuple["Trace", tuple[str, ...]]:
    """The trace, and the metrics of its score; refuses one exit, rows without labels, and metrics that do not fit."""
    from pipeline.evaluation.trace import require_labels

    trace = _checked(file)
    if trace.exits == 1:
        raise _one_exit(file)
    with named(file):
        require_labels(trace)
    fitting = refuse_metrics(metrics, trace.kind, trace.classes)
    return trace, tuple(dict.fromkeys(metrics)) or (fitting if trace.kind == "regression" else ("accuracy",))


def _one_exit(file: Path) -> ArtifactError:
    """The error of a trace on which nothing can leave early; it names the traces beside it on which something can."""
    from pipeline.results import TraceIndex

    try:
        entries = TraceIndex.read(file.parent / HERE.trace_index("").name, "").traces
    except ArtifactError:  # a file of another program
        entries = ()
    own = next((entry for entry in entries if entry.file == file.name), None)
    if own is None:
        return ArtifactError(f"{file}: this trace has one exit, so that nothing can leave early; give one of several")
    others = [str(file.parent / e.file) for e in entries if e.multi_exit and e.split == own.split]
    some = [*others[:SHOWN], *([f"{len(others) - SHOWN} more"] if len(others) > SHOWN else [])]
    return ArtifactError(
        f"{file}: this trace has one exit ({own.method}, {own.backbone}, seed {own.seed}); those with exits: "
        f"{', '.join(some) or 'none, add joint to methods'}"
    )


def refuse_metrics(metrics: Sequence[str], kind: str, classes: int) -> tuple[str, ...]:
    """The metrics that fit a kind of answers; refuses others among `metrics`."""
    from pipeline.evaluation.metrics import METRICS, metrics_for

    fitting = metrics_for(kind, classes)
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS, key="--metric")
        if name not in fitting:
            outputs = f" of {classes} classes" if kind == "classification" else ""
            raise UnsupportedError(f"--metric {name}: has no meaning for a {kind}{outputs}; use {' or '.join(fitting)}")
    return fitting


def _checked(file: Path) -> "Trace":
    """A trace with rows, of which every exit has an answer."""
    from pipeline.evaluation.trace import load_trace

    trace = load_trace(file)
    if trace.rows == 0:
        raise ArtifactError(f"{file}: holds no rows; write some")
    with named(file):
        trace.answers()
    return trace


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Put the file's name into messages about a trace."""
    try:
        yield
    except PipelineError as error:
        raise type(error)(str(error).replace("trace: ", f"{file}: ", 1)) from None


def parse_settings(settings: Sequence[str]) -> dict[str, float]:
    """Setting to value, from NAME=VALUE pairs."""
    values = {}
    for pair in settings:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ParamsError(f"--set {pair}: is not NAME=VALUE, such as tau=0.5")
        if name in values:
            raise ParamsError(f"--set {pair}: {name} is set twice; set it once")
        values[name] = _parsed(value)
        if math.isnan(values[name]):
            raise ParamsError(f"--set {pair}: {value!r} is not a number; give one")
    return values


def _parsed(text: str) -> float:
    """The number that people read in a text, NaN for none: Python also takes 1_0 for 10."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def load_selection(fit: Path | None, file: Path, trace: "Trace") -> "Trace | None":
    """The trace of the rows to learn from; its kind, exits and classes must be those of `trace`."""
    if fit is None:
        return None
    selection = _checked(fit)
    for field in ("kind", "exits", "classes"):
        fitted, replayed = getattr(selection, field), getattr(trace, field)
        if fitted != replayed:
            raise ArtifactError(
                f"--fit {fit}: {field} {fitted}, but {file} has {field} {replayed}; "
                "record both with one model, on two splits"
            )
    return selection


def fit_criterion(name: str, settings: Mapping[str, float], selection: "Trace | None", fit: Path | None) -> "Criterion":
    """A criterion, fitted on the rows of `selection`, from the file `fit`, where they are given."""
    from pipeline.evaluation.criteria import make

    criterion = make(name, settings, key="--criterion")
    if selection is None or fit is None:
        return criterion
    with named(fit):
        return criterion.fit(selection)


def number(threshold: str) -> float:
    """The threshold; infinity for `never`."""
    value = math.inf if threshold == "never" else _parsed(threshold)
    if not value > -math.inf:  # JSON has no infinities, and null means `never`
        raise ParamsError(f"--threshold {threshold}: is not a number; give one, or `never`")
    return value


def warn_beyond(criterion: "Criterion", trace: "Trace", threshold: float) -> None:
    """Say on stderr where a threshold is outside the scores that the criterion can give on a trace.

    All rows then leave at one exit, as a slip in a threshold's sign or scale does without a word. `never` is meant.
    """
    low, high = criterion.reach(trace.exits, trace.classes)
    if low <= threshold <= high or math.isinf(threshold):
        return
    print(
        f"warning: --threshold {threshold:g}: {criterion.name} gives {low:.4g} to {high:.4g} here, so every row "
        f"{'leaves at the first exit' if threshold < low else 'runs all layers'}",
        file=sys.stderr,
    )
