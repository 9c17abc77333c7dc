"""The report's numbers as flat files, for DVC's own views: `dvc metrics`, `dvc exp show` and `dvc plots`.

docs/design/views.md says which file is for which command.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.preferred import preferred
from pipeline.report.between import by_speed, line_of, scores_at
from pipeline.report.lines import medians
from pipeline.report.stored import Stored, TaskResults
from pipeline.results import Curve, ExitScores, Row

ALL_TASKS = "_all-tasks"
"""File of the means over tasks; no task's name begins so, and it is the first in order."""
SPEEDS = np.round(np.geomspace(1.0, 12.0, 41), 4)
"""Layer speed-ups at which curves are drawn."""
Numbers = Mapping[str, float | str]


class SpeedPoint(NamedTuple):
    """A point of a speed-accuracy curve: the median over seeds."""

    model: str
    criterion: str
    speedup: float
    score: float


class ExitPoint(NamedTuple):
    """The score of an exit alone: the median over seeds."""

    model: str
    layer: int
    score: float


class PatiencePoint(NamedTuple):
    """Score and layer speed-up under a patience: medians over seeds."""

    model: str
    patience: int
    score: float
    speedup: float


# Metrics


def headlines(stored: Stored) -> dict[str, str]:
    """What a change is judged by: a file for each task, and one of the means over several tasks."""
    by_task = {task.name: _headline(task) for task in stored.tasks}
    files = {f"{name}.json": _json(numbers) for name, numbers in by_task.items()}
    if len(by_task) > 1:
        every = [*by_task.values()]
        shared = [name for name in ("score", "speedup", "all_layers") if all(name in numbers for numbers in every)]
        means = {f"mean_{name}": round(fmean(float(numbers[name]) for numbers in every), 6) for name in shared}
        files[f"{ALL_TASKS}.json"] = _json(means)
    return files


def operating_points(stored: Stored) -> dict[str, str]:
    """A file for each row: its score with the interval, and its speed-up."""
    files = {}
    for task in stored.tasks:
        for row in task.rows:
            split = [row.split] if len(task.splits) > 1 else []
            path = "/".join([task.name, *split, row.backbone, row.method, row.criterion or "all_layers"])
            files[f"{path}.json"] = _json(_numbers(row))
    return files


def _headline(task: TaskResults) -> Numbers:
    """The best criterion's operating point on the first report split, beside the same model through all layers.

    The best is the one that the rows that chose the thresholds prefer, as on the report's first screen. Without early
    exits it is the model through all layers with the highest score.
    """
    rows = [row for row in task.rows if row.split == task.splits[0]]
    whole = {(row.backbone, row.method): row for row in rows if row.criterion is None}
    best = preferred(rows, task.curves, task.splits[0])
    if best is None:
        best = max(whole.values(), key=lambda row: row.score.median if row.score.median is not None else -np.inf)
        return {**_numbers(best), **_learned(task, best), "by": _model(task, best)}
    full = whole[best.backbone, best.method].score.median
    by = {"by": f"{_model(task, best)} {best.criterion}"}
    return {**_numbers(best), **_defined({"all_layers": full}), **_learned(task, best), **by}


def _learned(task: TaskResults, row: Row) -> Numbers:
    """Share of the seeds that, through all layers, know more than one answer for every row."""
    learned = task.learned(row)
    return {"learned": round(1 - learned.ignorant / len(learned.by_seed), 6)}


def _numbers(row: Row) -> dict[str, float | str]:
    score = row.score
    return _defined({"score": score.median, "low": score.low, "high": score.high, "speedup": row.layer_speedup.median})


def _defined(numbers: Mapping[str, float | None]) -> dict[str, float | str]:
    return {name: number for name, number in numbers.items() if number is not None}


def _json(numbers: Numbers) -> str:
    return json.dumps(numbers, indent=2) + "\n"


# Plots


def tables(stored: Stored) -> dict[str, str]:
    """The tables behind the plots: speed-accuracy curves, scores by exit and patience sweeps, a file for each task."""
    files = {}
    for task in stored.tasks:
        for kind, fields, points in (
            ("speed", SpeedPoint._fields, _speed_points(task)),
            ("exits", ExitPoint._fields, _exit_points(task)),
            ("patience", PatiencePoint._fields, _patience_points(task)),
        ):
            if rows := [*points]:
                files[f"{kind}/{task.name}.csv"] = _csv(fields, rows)
    return files


def _csv(fields: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows(rows)
    return text.getvalue()


def _model(task: TaskResults, part: Curve | ExitScores | Row) -> str:
    """A trained method on a report split; only what differs within the task."""
    backbones = len({group.backbone for group in task.groups}) > 1
    return " ".join([part.backbone] * backbones + [part.method] + [part.split] * (len(task.splits) > 1))


def _reported(task: TaskResults) -> list[Curve]:
    return [curve for curve in task.curves if curve.split in task.splits]


def _speed_points(task: TaskResults) -> Iterator[SpeedPoint]:
    by_line = groupby(_reported(task), key=lambda curve: (_model(task, curve), curve.criterion, curve.split))
    lines = [(model, criterion, [line_of(curve) for curve in curves]) for (model, criterion, _), curves in by_line]
    whole = {(row.backbone, row.method): row.layer_speedup.median for row in task.rows if row.criterion is None}
    for entries in _exits(task):
        full = entries[0].layers[-1] * (whole[entries[0].backbone, entries[0].method] or 1.0)
        speeds = [full / layer for layer in entries[0].layers]
        defined = [entry.scores for entry in entries if None not in entry.scores]
        of_seeds = [by_speed(speeds, [score for score in scores if score is not None]) for scores in defined]
        lines.append((_model(task, entries[0]), "fixed exit", of_seeds))
    for model, criterion, of_seeds in lines:
        if of_seeds:
            scores = np.median([scores_at(line, SPEEDS) for line in of_seeds], axis=0)
            for speed, score in zip(SPEEDS, scores, strict=True):
                if np.isfinite(score):
                    yield SpeedPoint(model, criterion, float(speed), round(float(score), 6))


def _exits(task: TaskResults) -> Iterator[list[ExitScores]]:
    """The reported exits of each multi-exit model, a list over seeds."""
    entries = [e for e in task.evaluated.exits if e.split in task.splits and len(e.layers) > 1]
    for _, of_seeds in groupby(
        sorted(entries, key=lambda e: (e.split, e.backbone, e.method)), key=lambda e: (e.split, e.backbone, e.method)
    ):
        yield [*of_seeds]


def _exit_points(task: TaskResults) -> Iterator[ExitPoint]:
    for entries in _exits(task):
        for i, layer in enumerate(entries[0].layers):
            scores = [entry.scores[i] for entry in entries]
            defined = [score for score in scores if score is not None]
            if len(defined) == len(scores):
                yield ExitPoint(_model(task, entries[0]), layer, median(defined))


def _patience_points(task: TaskResults) -> Iterator[PatiencePoint]:
    curves = [curve for curve in _reported(task) if curve.criterion == "patience"]
    for model, of_seeds in groupby(sorted(curves, key=lambda c: _model(task, c)), key=lambda c: _model(task, c)):
        for threshold, speed, score in medians([*of_seeds]):
            if np.isfinite(threshold):
                yield PatiencePoint(model, int(threshold), score, speed)
