"""Tasks: what a data set asks, where its columns and labels are, and how GLUE scores it.

A task of params.yaml is a known name with a few settings changed, or own data that gives source, text, label and
label names itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.metrics import BINARY, CORRELATIONS, METRICS
from pipeline.settings import Block, Count, PositiveInt

Kind = Literal["classification", "regression"]


class HubSource(Block):
    """A data set by its hub name; read from the hub, or below the hub mirror where one is named."""

    hub: str
    config: str | None = None
    train: str = "train"
    report: dict[str, str] = {"validation": "validation"}
    """Report splits, our name to the hub's: MNLI has two, kept apart."""
    test: dict[str, str] = {}
    """Splits without labels, our name to the hub's; a label column that they have is not read."""


class FileSource(Block):
    """Own files: .csv, .tsv, .jsonl or .parquet with named columns."""

    train: Path
    report: dict[str, Path] = Field(min_length=1)
    test: dict[str, Path] = {}
    """Files without labels; a label column that they have is not read."""


class DemoSource(Block):
    """Generated data."""

    demo: Literal["sentences", "pairs", "similarity"]


Source = HubSource | FileSource | DemoSource


class Rows(Block):
    """How many rows to take; None takes all. Sub-samples are drawn with `seed`, once."""

    train: PositiveInt | None = None
    selection: PositiveInt | None = None
    """Rows carved from the training split to select on; None takes a tenth, at most 2,000."""
    report: PositiveInt | None = None
    seed: Count = 0


class TaskSettings(Block):
    """One entry of params.yaml's `tasks`."""

    source: HubSource | FileSource | DemoSource | None = None
    kind: Kind | None = None
    text: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=2)
    label: str | None = None
    label_names: tuple[str, ...] | None = None
    """Class names in the order of the classes. A label of the data that is, as text, one of them (1 and 1.0 are "1",
    true is "true") is that class; only else it is a class index from 0. Where names are numbers, all labels of all
    splits are read as names, or all as indices."""
    drop_label: int | str | None = None
    """Rows with this label have no gold label and are left out, -1 in SNLI."""
    metrics: tuple[str, ...] | None = Field(default=None, min_length=1)
    test: bool | None = None
    """Predict the splits without labels and write them to files, for GLUE in its server's format. None: own data that
    names such splits, and no task that is known here."""
    rows: Rows = Rows()
    max_length: PositiveInt = 128
    """Longest input in tokens; longer ones are cut."""


_ALL_ROWS = Rows()


@dataclass(frozen=True)
class ServerFiles:
    """How the GLUE server wants a task's predictions.

    Attributes:
        names: split to the file's name.
        words: classes by name rather than by number.
        span: lowest and highest value of a regression.
    """

    names: Mapping[str, str]
    words: bool = False
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Task:
    """A task, complete. `metrics` are averaged into its score, as GLUE does.

    Attributes:
        test: whether the source's splits without labels are prepared and predicted.
        drop_label: rows with this label are left out.
        server: how GLUE wants predictions; None for a task that is not GLUE's.
    """

    name: str
    source: Source
    kind: Kind
    text: tuple[str, ...]
    label: str
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: Rows = _ALL_ROWS
    max_length: int = 128
    test: bool = False
    drop_label: int | str | None = None
    server: ServerFiles | None = None

    @property
    def modality(self) -> Literal["text", "image"]:
        """What the rows are."""
        return "text"

    @property
    def unlabelled(self) -> Mapping[str, str | Path]:
        """Splits to predict, our name to the source's; none unless `test` asks for them."""
        return {} if isinstance(self.source, DemoSource) or not self.test else dict(self.source.test)

    @property
    def outputs(self) -> int:
        """Outputs of a classifier for this task: classes, or 1 for regression."""
        return len(self.label_names) if self.kind == "classification" else 1


def _glue(
    config: str, file: str, text: tuple[str, ...], labels: tuple[str, ...], metrics: tuple[str, ...] = ("accuracy",)
) -> Task:
    kind: Kind = "classification" if labels else "regression"
    report, test, files = {"validation": "validation"}, {"test": "test"}, {"test": f"{file}.tsv"}
    if config == "mnli":
        halves = {"matched": "m", "mismatched": "mm"}
        report = {half: f"validation_{half}" for half in halves}
        test = {f"test_{half}": f"test_{half}" for half in halves}
        files = {f"test_{half}": f"{file}-{short}.tsv" for half, short in halves.items()}
    source = HubSource(hub="nyu-mll/glue", config=config, report=report, test=test)
    server = ServerFiles(files, words="entailment" in labels, span=None if labels else (0.0, 5.0))
    return Task(config, source, kind, text, "label", labels, metrics, server=server)


def _hub(
    name: str, hub: str, text: tuple[str, ...], labels: tuple[str, ...], report: str, label: str = "label"
) -> Task:
    kind: Kind = "classification" if labels else "regression"
    metrics = ("accuracy",) if labels else ("pearson", "spearman")
    return Task(name, HubSource(hub=hub, report={report: report}), kind, text, label, labels, metrics)


def _demo(
    name: str, demo: Literal["sentences", "pairs", "similarity"], text: tuple[str, ...], labels: tuple[str, ...]
) -> Task:
    kind: Kind = "classification" if labels else "regression"
    metrics = ("accuracy",) if labels else ("pearson", "spearman")
    return Task(name, DemoSource(demo=demo), kind, text, "label" if labels else "score", labels, metrics)


_PAIR = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILED = ("entailment", "not_entailment")
_SICK = ("sentence_A", "sentence_B")
_SAME = ("not_equivalent", "equivalent")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _demo("demo-sentences", "sentences", ("sentence",), ("negative", "positive")),
        _demo("demo-pairs", "pairs", _PREMISE, _NLI),
        _demo("demo-similarity", "similarity", _PAIR, ()),
        _glue("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
        _glue("sst2", "SST-2", ("sentence",), ("negative", "positive")),
        _glue("mrpc", "MRPC", _PAIR, _SAME, ("accuracy", "f1")),
        _glue("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        _glue("stsb", "STS-B", _PAIR, (), ("pearson", "spearman")),
        _glue("mnli", "MNLI", _PREMISE, _NLI),
        _glue("qnli", "QNLI", ("question", "sentence"), _ENTAILED),
        _glue("rte", "RTE", _PAIR, _ENTAILED),
        replace(_hub("snli", "stanfordnlp/snli", _PREMISE, _NLI, "validation"), drop_label=-1),
        # SICK's validation split has 500 rows, Yelp and AG News have none: their labelled test splits report.
        _hub("sick", "RobZamp/sick", _SICK, _NLI, "test"),
        _hub("sick-relatedness", "RobZamp/sick", _SICK, (), "test", "relatedness_score"),
        _hub("yelp", "fancyzhx/yelp_polarity", ("text",), ("negative", "positive"), "test"),
        _hub("ag_news", "fancyzhx/ag_news", ("text",), ("World", "Sports", "Business", "Sci/Tech"), "test"),
        _hub("rotten_tomatoes", "cornell-movie-review-data/rotten_tomatoes", ("text",), ("neg", "pos"), "validation"),
    )
}


def resolve_task(name: str, settings: TaskSettings) -> Task:
    """Complete an entry of `tasks`.

    Raises:
        ParamsError: unknown name without a source, a missing or unknown setting, settings that do not go together.
    """
    known = TASKS.get(name)
    given = settings.model_dump(
        exclude_none=True, include={"kind", "text", "label", "label_names", "metrics", "drop_label"}
    )
    source = settings.source or (known.source if known else None)
    if source is None:
        raise ParamsError(f"{unknown('task', name, TASKS, key='tasks')}; for own data give tasks.{name}.source")
    if known is None:
        _complete(name, given)
    base = known.__dict__ if known else {}
    merged = {**base, **given, "name": name, "source": source, "rows": settings.rows, "max_length": settings.max_length}
    if settings.source is not None:
        merged["server"] = None  # other rows than GLUE's
    merged["test"] = _wants_test(name, settings, source)
    task = Task(**merged)
    if task.kind == "classification" and len(set(task.label_names)) < max(2, len(task.label_names)):
        given_names = ", ".join(task.label_names) or "none"
        raise ParamsError(f"tasks.{name}.label_names: {given_names}; a classification needs two or more, all different")
    _check_metrics(task)
    _check_splits(task)
    return task


def _complete(name: str, given: dict[str, Any]) -> None:
    """Own data: what may be left out, and that nothing else was."""
    kind = given.setdefault("kind", "classification")
    given.setdefault("metrics", ("accuracy",) if kind == "classification" else ("pearson", "spearman"))
    needed = ("text", "label", "label_names") if kind == "classification" else ("text", "label")
    for key in needed:
        if key not in given:
            raise ParamsError(f"tasks.{name}.{key}: missing; own data needs {', '.join(needed)}")
    given.setdefault("label_names", ())


def _wants_test(name: str, settings: TaskSettings, source: Source) -> bool:
    named = not isinstance(source, DemoSource) and bool(source.test)
    if settings.test and not named:
        raise ParamsError(f"tasks.{name}.test: true and the source has no split without labels; name it in source.test")
    return named and (settings.source is not None if settings.test is None else settings.test)


def _check_metrics(task: Task) -> None:
    for metric in task.metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS, key=f"tasks.{task.name}.metrics")
        if (metric in CORRELATIONS) != (task.kind == "regression"):
            fit = sorted(m for m in METRICS if (m in CORRELATIONS) == (task.kind == "regression"))
            raise ParamsError(f"tasks.{task.name}.metrics: {metric!r} is not for a {task.kind}; take {', '.join(fit)}")
        if metric in BINARY and len(task.label_names) != 2:
            classes = len(task.label_names)
            raise ParamsError(
                f"tasks.{task.name}.metrics: {metric!r} is for two classes and there are {classes}; take accuracy"
            )


def _check_splits(task: Task) -> None:
    """Split names become file names beside train and selection."""
    if isinstance(task.source, DemoSource):
        return
    names = [*task.source.report, *task.source.test]
    for split in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", split) or split in ("train", "selection") or names.count(split) > 1:
            raise ParamsError(
                f"tasks.{task.name}.source: split name {split!r} is taken or no plain word; give each split a name of "
                "its own in letters and digits"
            )
