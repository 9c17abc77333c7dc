"""Read every stored result that today's params name."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.params import Params
from pipeline.report.diagnosed import Diagnosed
from pipeline.report.stored import (
    Attack,
    Curve,
    Defence,
    Evaluated,
    Exits,
    Group,
    Interval,
    Latency,
    Paired,
    Point,
    Result,
    Simulation,
    Stored,
    Timed,
    Trained,
)
from pipeline.storage import read_json
from pipeline.tasks.task import DemoSource

SCHEMA = 1
FINETUNE = "run `dvc repro finetune`"
FIGURES = (
    "original_accuracy",
    "after_attack_accuracy",
    "pooled_accuracy",
    "attack_success_rate",
    "queries",
    "perturbed_words",
    "layers_before",
    "layers_under_attack",
    "layers_after",
)


def collect(params: Params, outputs: Path = Path("outputs")) -> Stored:
    """Read the results of the tasks, latency tasks and attack tasks that params name, and cifar and simulate.

    Raises:
        ArtifactError: one of them is missing, cut short, of another schema or without a field: says what to run.
    """
    named = {name: params.task(name) for name in params.tasks}
    demo = {name for name, task in named.items() if isinstance(task.source, DemoSource)}
    cut = {name: task.rows.train for name, task in named.items()} | dict.fromkeys(
        params.cifar.datasets, params.cifar.rows.train
    )
    return Stored(
        tasks=tuple(_task(outputs, name) for name in params.tasks),
        trained=_trained(outputs / "finetune/trials.json", FINETUNE),
        cifar_trained=_trained(outputs / "cifar/trials.json", "run `dvc repro cifar`"),
        latency=tuple(_latency(outputs, name) for name in params.latency.tasks),
        attacks=tuple(_attack(outputs, name) for name in params.attack.tasks),
        cifar=_cifar(outputs),
        simulation=_simulation(outputs),
        cut={name: rows for name, rows in cut.items() if rows is not None},
        demo=frozenset(demo | {name for name in params.cifar.datasets if name.startswith("demo-")}),
    )


@contextmanager
def _fields_of(path: Path, remedy: str) -> Iterator[None]:
    """Turn a field that is not there, or not of its type, into one line that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: not as docs/results-schema.md has it ({error!r}); {remedy}") from None


def _task(outputs: Path, name: str) -> Evaluated:
    remedy = f"run `dvc repro evaluate@{name}`"
    path, chosen = outputs / "evaluate" / f"{name}.json", outputs / "selected" / f"{name}.json"
    selected = read_json(chosen, SCHEMA, FINETUNE)
    with _fields_of(chosen, FINETUNE):
        groups = [Group.read(name, group) for group in selected["groups"]]
    return _evaluated(name, path, outputs / "evaluate" / f"{name}.curves.csv", remedy, groups)


def _cifar(outputs: Path) -> Evaluated:
    remedy = "run `dvc repro cifar`"
    path = outputs / "cifar/cifar.json"
    stored = read_json(path, SCHEMA, remedy)
    with _fields_of(path, remedy):
        groups = [Group.read(group["dataset"], group) for group in stored["groups"]]
    return _evaluated("cifar", path, outputs / "cifar/curves.csv", remedy, groups)


def _evaluated(name: str, path: Path, curves: Path, remedy: str, groups: Sequence[Group]) -> Evaluated:
    """A row's task is its data set, where the file holds several (cifar), else the file's own task."""
    stored = read_json(path, SCHEMA, remedy)
    with _fields_of(path, remedy):
        low, high = stored["window"]
        return Evaluated(
            name,
            stored["kind"],
            stored["protocol"],
            (low, high),
            stored["choose"],
            tuple(Result.read(row.get("dataset", name), row) for row in stored["rows"]),
            tuple(Exits.read(row.get("dataset", name), row) for row in stored["exits"]),
            tuple(Diagnosed.read(row.get("dataset", name), row) for row in stored["diagnosis"]),
            _curves(curves, name, remedy),
            tuple(groups),
        )


def _curves(path: Path, name: str, remedy: str) -> tuple[Curve, ...]:
    """Curves in the file's order; a setting without a defined score is left out of its curve."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path}: unreadable ({error}); {remedy}") from None
    identity = ("backbone", "method", "criterion", "seed", "split")
    with _fields_of(path, remedy):
        return tuple(
            Curve(task, backbone, method, criterion, int(seed), split, _points(members))
            for (task, backbone, method, criterion, seed, split), members in groupby(
                rows, key=lambda row: (row.get("dataset") or name, *(row[column] for column in identity))
            )
        )


def _points(rows: Iterator[dict[str, str]]) -> tuple[Point, ...]:
    points = (
        Point(*(float(row[column]) for column in ("threshold", "score", "layer_speedup", "flop_speedup")))
        for row in rows
    )
    return tuple(point for point in points if point.score == point.score)


def _trained(path: Path, remedy: str) -> dict[str, Trained]:
    stored = read_json(path, SCHEMA, remedy)
    with _fields_of(path, remedy):
        return {
            row["key"]: Trained(
                row["key"],
                row["mlflow_run_id"],
                row["train_seconds"],
                row["train_seconds_to_best"],
                row["best_epoch"],
                row["epochs_run"],
            )
            for row in stored["trials"]
        }


def _latency(outputs: Path, name: str) -> Latency:
    path, remedy = outputs / "latency" / f"{name}.json", f"run `dvc repro latency@{name}`"
    stored = read_json(path, SCHEMA, remedy)
    fields = [field for field in Timed.__dataclass_fields__ if field != "task"]
    with _fields_of(path, remedy):
        rows = tuple(Timed(name, **{field: row[field] for field in fields}) for row in stored["rows"])
        return Latency(name, stored["device"], stored["threads"], rows)


def _attack(outputs: Path, name: str) -> Attack:
    path, remedy = outputs / "attack" / f"{name}.json", f"run `dvc repro attack@{name}`"
    stored = read_json(path, SCHEMA, remedy)

    def defence(row: dict[str, Any]) -> Defence:
        labels = {field: row[field] for field in ("backbone", "method", "criterion", "threshold", "key", "seed")}
        figures = {figure: Interval.over_examples(row[figure]) for figure in FIGURES}
        against = row["against_first"]
        return Defence(**labels, figures=figures, against_first=Paired(**against) if against else None)

    with _fields_of(path, remedy):
        return Attack(
            name,
            stored["recipe"],
            stored["goal"],
            stored["max_queries"],
            stored["resources"],
            stored["comparable_with_paper"],
            stored["source"],
            stored["examples"],
            tuple(defence(row) for row in stored["rows"]),
        )


def _simulation(outputs: Path) -> Simulation:
    path, remedy = outputs / "simulate/simulate.json", "run `dvc repro simulate`"
    stored = read_json(path, SCHEMA, remedy)
    with _fields_of(path, remedy):
        parts = {part: tuple(stored[part]) for part in ("rows", "theorem", "example")}
        return Simulation(stored["n_layers"], stored["samples"], **parts)
