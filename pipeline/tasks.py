"""Tasks: what a data set asks, where its columns and labels are, and how GLUE scores it.

A task of params.yaml is a known name with a few settings changed, or own data that gives source, text, label and
label names itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.errors import ParamsError, unknown
from pipeline.metrics import METRICS
from pipeline.settings import Block, Count, PositiveInt

Kind = Literal["classification", "regression"]


class HubSource(Block):
    """A data set by its hub name; read from the hub, or below the hub mirror where one is named."""

    hub: str
    config: str | None = None
    train: str = "train"
    report: dict[str, str] = {"validation": "validation"}
    """Report splits, our name to the hub's: MNLI has two, kept apart."""
    unlabelled: float | None = None
    """A label that says that there is none; such rows are left out (SNLI has -1 where its judges disagreed)."""


class FileSource(Block):
    """Own files: .csv, .tsv, .jsonl or .parquet with named columns."""

    train: Path
    report: dict[str, Path] = Field(min_length=1)


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
    metrics: tuple[str, ...] | None = Field(default=None, min_length=1)
    rows: Rows = Rows()
    max_length: PositiveInt = 128
    """Longest input in tokens; longer ones are cut."""


_ALL_ROWS = Rows()


@dataclass(frozen=True)
class Task:
    """A task, complete. `metrics` are averaged into its score, as GLUE does."""

    name: str
    source: Source
    kind: Kind
    text: tuple[str, ...]
    label: str
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: Rows = _ALL_ROWS
    max_length: int = 128

    @property
    def outputs(self) -> int:
        """Outputs of a classifier for this task: classes, or 1 for regression."""
        return len(self.label_names) if self.kind == "classification" else 1


def _glue(
    config: str, text: tuple[str, ...], labels: tuple[str, ...], metrics: tuple[str, ...] = ("accuracy",)
) -> Task:
    kind: Kind = "classification" if labels else "regression"
    report = {"validation": "validation"}
    if config == "mnli":
        report = {"matched": "validation_matched", "mismatched": "validation_mismatched"}
    source = HubSource(hub="nyu-mll/glue", config=config, report=report)
    return Task(config, source, kind, text, "label", labels, metrics)


def _classes(
    name: str,
    hub: str,
    text: tuple[str, ...],
    labels: tuple[str, ...],
    *,
    report: str = "validation",
    unlabelled: float | None = None,
) -> Task:
    source = HubSource(hub=hub, report={report: report}, unlabelled=unlabelled)
    return Task(name, source, "classification", text, "label", labels, ("accuracy",))


def _demo(
    name: str, demo: Literal["sentences", "pairs", "similarity"], text: tuple[str, ...], labels: tuple[str, ...]
) -> Task:
    kind: Kind = "classification" if labels else "regression"
    metrics = ("accuracy",) if labels else ("pearson", "spearman")
    return Task(name, DemoSource(demo=demo), kind, text, "label" if labels else "score", labels, metrics)


_PAIR = ("sentence1", "sentence2")
_PREMISE, _SICK = ("premise", "hypothesis"), ("sentence_A", "sentence_B")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILED = ("entailment", "not_entailment")
_SAME = ("not_equivalent", "equivalent")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _demo("demo-sentences", "sentences", ("sentence",), ("negative", "positive")),
        _demo("demo-pairs", "pairs", _PREMISE, _NLI),
        _demo("demo-similarity", "similarity", _PAIR, ()),
        _glue("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
        _glue("sst2", ("sentence",), ("negative", "positive")),
        _glue("mrpc", _PAIR, _SAME, ("accuracy", "f1")),
        _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        _glue("stsb", _PAIR, (), ("pearson", "spearman")),
        _glue("mnli", _PREMISE, _NLI),
        _glue("qnli", ("question", "sentence"), _ENTAILED),
        _glue("rte", _PAIR, _ENTAILED),
        _classes("rotten_tomatoes", "cornell-movie-review-data/rotten_tomatoes", ("text",), ("neg", "pos")),
        _classes("snli", "stanfordnlp/snli", _PREMISE, _NLI, unlabelled=-1),
        _classes("sick", "RobZamp/sick", _SICK, _NLI, report="test"),
        Task(
            "sick-relatedness",
            HubSource(hub="RobZamp/sick", report={"test": "test"}),
            "regression",
            _SICK,
            "relatedness_score",
            (),
            ("pearson", "spearman"),
        ),
        _classes("yelp", "fancyzhx/yelp_polarity", ("text",), ("negative", "positive"), report="test"),
        _classes("ag_news", "fancyzhx/ag_news", ("text",), ("world", "sports", "business", "sci_tech"), report="test"),
    )
}


def resolve_task(name: str, settings: TaskSettings) -> Task:
    """Complete an entry of `tasks`.

    Raises:
        ParamsError: unknown name without a source, a missing or unknown setting.
    """
    known = TASKS.get(name)
    given = settings.model_dump(exclude_none=True, include={"kind", "text", "label", "label_names", "metrics"})
    source = settings.source or (known.source if known else None)
    if source is None:
        raise ParamsError(f"{unknown('task', name, TASKS, key='tasks')}; for own data give tasks.{name}.source")
    if known is None:
        kind = given.setdefault("kind", "classification")
        given.setdefault("metrics", ("accuracy",) if kind == "classification" else ("pearson", "spearman"))
        needed = ("text", "label", "label_names") if kind == "classification" else ("text", "label")
        for key in needed:
            if key not in given:
                raise ParamsError(f"tasks.{name}.{key}: missing; own data needs {', '.join(needed)}")
        given.setdefault("label_names", ())
    for metric in given.get("metrics", ()):
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS, key=f"tasks.{name}.metrics")
    base = known.__dict__ if known else {}
    merged = {**base, **given, "name": name, "source": source}
    return Task(**{**merged, "rows": settings.rows, "max_length": settings.max_length})
