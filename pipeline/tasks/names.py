"""Tasks by name, and the completion of an entry of params.yaml's `tasks`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ParamsError, shown, unknown
from pipeline.evaluation.metrics import CORRELATIONS, METRICS, metrics_for
from pipeline.settings import NAME
from pipeline.tasks.splits import HELD_OUT
from pipeline.tasks.task import Colours, DemoSource, HubSource, Kind, ServerFiles, Source, Task, TaskSettings
from pipeline.tasks.words import CIFAR10, CIFAR100, DEMO_CLASSES, IMAGE_LABELS


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


def _demo(name: str, demo: Literal["sentences", "pairs", "similarity"], text: tuple[str, ...]) -> Task:
    labels = DEMO_CLASSES.get(demo, ())
    kind: Kind = "classification" if labels else "regression"
    metrics = ("accuracy",) if labels else ("pearson", "spearman")
    return Task(name, DemoSource(demo=demo), kind, text, "label" if labels else "score", labels, metrics)


def _cifar(name: str, classes: tuple[str, ...], label: str, colours: Colours, torchvision: tuple[str, str]) -> Task:
    source = HubSource(hub=f"uoft-cs/{name}", report={"test": "test"})
    return Task(
        name, source, "classification", (), label, classes, ("accuracy",), image="img", colours=colours,
        torchvision=torchvision,
    )  # fmt: skip


_PAIR = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")
_NLI = ("entailment", "neutral", "contradiction")
_ENTAILED = ("entailment", "not_entailment")
_SICK = ("sentence_A", "sentence_B")
_SAME = ("not_equivalent", "equivalent")

MOST_MADE = 200_000
"""Rows of a generated split, at most."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _demo("demo-sentences", "sentences", ("sentence",)),
        _demo("demo-pairs", "pairs", _PREMISE),
        _demo("demo-similarity", "similarity", _PAIR),
        Task(
            "demo-images",
            DemoSource(demo="images"),
            "classification",
            (),
            "label",
            IMAGE_LABELS,
            ("accuracy",),
            image="image",
            colours=Colours((0.31, 0.31, 0.31), (0.27, 0.27, 0.27)),
        ),
        _glue("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
        _glue("sst2", "SST-2", ("sentence",), ("negative", "positive")),
        _glue("mrpc", "MRPC", _PAIR, _SAME, ("accuracy", "f1")),
        _glue("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
        _glue("stsb", "STS-B", _PAIR, (), ("pearson", "spearman")),
        _glue("mnli", "MNLI", _PREMISE, _NLI),
        _glue("qnli", "QNLI", ("question", "sentence"), _ENTAILED),
        _glue("rte", "RTE", _PAIR, _ENTAILED),
        replace(_hub("snli", "stanfordnlp/snli", _PREMISE, _NLI, "validation"), drop_label=-1),
        # SICK's validation split has 500 rows, and Yelp and AG News have none, so their labelled test splits report.
        _hub("sick", "RobZamp/sick", _SICK, _NLI, "test"),
        _hub("sick-relatedness", "RobZamp/sick", _SICK, (), "test", "relatedness_score"),
        replace(
            _hub("yelp", "fancyzhx/yelp_polarity", ("text",), ("negative", "positive"), "test"), source_names=("1", "2")
        ),
        _hub("ag_news", "fancyzhx/ag_news", ("text",), ("World", "Sports", "Business", "Sci/Tech"), "test"),
        _hub("rotten_tomatoes", "cornell-movie-review-data/rotten_tomatoes", ("text",), ("neg", "pos"), "validation"),
        _cifar(
            "cifar10",
            CIFAR10,
            "label",
            Colours((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
            ("CIFAR10", "cifar-10-batches-py"),
        ),
        replace(
            _cifar(
                "cifar100",
                CIFAR100,
                "fine_label",
                Colours((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
                ("CIFAR100", "cifar-100-python"),
            ),
            source_names=tuple("cra" if name == "crab" else name for name in CIFAR100),  # the hub's spelling
        ),
    )
}


def resolve_task(name: str, settings: TaskSettings) -> Task:
    """The complete task of an entry of `tasks`.

    Raises:
        ParamsError: unknown name without a source, a missing or unknown setting, or settings that contradict.
    """
    template = TASKS.get(name)
    values = settings.model_dump(
        exclude_none=True, include={"kind", "text", "image", "label", "label_names", "metrics", "drop_label"}
    )
    source = settings.source or (template.source if template else None)
    if source is None:
        raise ParamsError(f"{unknown('task', name, TASKS, key='tasks')}; for your own data give tasks.{name}.source")
    if "text" in values and "image" in values:
        raise ParamsError(f"tasks.{name}: has both text and image; a task has one of them, take the other out")
    if template is None:
        _complete(name, values)
    elif ("image" if template.image is None else "text") in values:
        raise ParamsError(
            f"tasks.{name}: its rows are {template.modality}s; give your own data a name that is not taken"
        )
    base = template.__dict__ if template else {}
    merged = {
        **base,
        **values,
        "name": name,
        "source": source,
        "rows": settings.rows,
        "max_length": settings.max_length,
    }
    if settings.source is not None:  # the named task's files, colours and folders are of other rows
        merged |= {"server": None, "colours": None, "torchvision": None}
    if settings.source is not None or settings.label_names is not None:
        merged["source_names"] = ()
    merged["test"] = _wants_test(name, settings, source)
    if len(set(merged["text"])) < len(merged["text"]):
        raise ParamsError(f"tasks.{name}.text: {', '.join(merged['text'])} names one column twice; name two, or one")
    if merged["label"] in merged["text"]:
        raise ParamsError(f"tasks.{name}.label: {shown(merged['label'])} is a text column too; name the labels' column")
    task = Task(**merged)
    if task.kind == "classification" and len(set(task.label_names)) < max(2, len(task.label_names)):
        shown_names = ", ".join(task.label_names) or "none"
        raise ParamsError(f"tasks.{name}.label_names: {shown_names}; a classification needs two or more, all different")
    _check_metrics(task)
    _check_splits(task)
    return task


def _complete(name: str, values: dict[str, Any]) -> None:
    """Fill in the defaults of a task without a template; refuse missing settings."""
    kind = values.setdefault("kind", "classification")
    if "image" in values:
        values["text"] = ()
        if kind == "regression":
            raise ParamsError(f"tasks.{name}.kind: images have no regression; take kind out")
    values.setdefault("metrics", ("accuracy",) if kind == "classification" else ("pearson", "spearman"))
    needed = ("text", "label", "label_names") if kind == "classification" else ("text", "label")
    for key in needed:
        if key not in values:
            also = ", or image in place of text" if key == "text" else ""
            raise ParamsError(f"tasks.{name}.{key}: missing; your own data needs {', '.join(needed)}{also}")
    values.setdefault("label_names", ())


def _wants_test(name: str, settings: TaskSettings, source: Source) -> bool:
    named = not isinstance(source, DemoSource) and bool(source.test)
    if settings.test and not named:
        raise ParamsError(f"tasks.{name}.test: true, but the source has no unlabelled split; name it in source.test")
    return named and (settings.source is not None if settings.test is None else settings.test)


def _check_metrics(task: Task) -> None:
    fitting = metrics_for(task.kind, len(task.label_names))
    for metric in task.metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS, key=f"tasks.{task.name}.metrics")
        if (metric in CORRELATIONS) != (task.kind == "regression"):
            raise ParamsError(
                f"tasks.{task.name}.metrics: {metric!r} is not for a {task.kind}; take {', '.join(fitting)}"
            )
        if metric not in fitting:
            classes = len(task.label_names)
            raise ParamsError(
                f"tasks.{task.name}.metrics: {metric!r} is for two classes and there are {classes}; take "
                f"{', '.join(fitting)}"
            )


def _check_splits(task: Task) -> None:
    """Check that what trains does not report, and that split names can be file names beside train and selection."""
    if isinstance(task.source, DemoSource):
        _check_made(task)
        return
    for split, report in task.source.report.items():
        if report == task.source.train or _is_file(report, task.source.train):
            raise ParamsError(
                f"tasks.{task.name}.source.report.{split}: {str(report)!r} is what trains; name other rows"
                + (", or take report out: a fifth is then held out" if isinstance(report, Path) else "")
            )
    names = [*(task.source.report or [HELD_OUT]), *task.source.test]
    for split in names:
        if not NAME.fullmatch(split) or split in ("train", "selection") or names.count(split) > 1:
            raise ParamsError(
                f"tasks.{task.name}.source: split name {split!r} is taken or no plain word; give each split a "
                "name of its own in letters and digits"
            )


def _is_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one file."""
    both = isinstance(one, Path) and isinstance(other, Path)
    return both and os.path.realpath(one) == os.path.realpath(other)


def _check_made(task: Task) -> None:
    """Check that generated rows fit into memory."""
    for key in ("train", "selection", "report"):
        rows = getattr(task.rows, key)
        if rows is not None and rows > MOST_MADE:
            raise ParamsError(
                f"tasks.{task.name}.rows.{key}: {rows}; the demo makes at most {MOST_MADE} rows, lower it"
            )
