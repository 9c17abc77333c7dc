"""Predictions for rows without labels, at the operating points that evaluate chose, in files that others read.

GLUE's server has a format of its own (gluebenchmark.com/faq): one file a task with the header `index`, `prediction`,
class names for the inference tasks, 0 or 1 for the others, a similarity from 0 to 5. Other tasks get the same table
with class names, or values as they are.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.point import sweep_at
from pipeline.evaluation.traced import SELECTION, Group, Seeded
from pipeline.results import OperatingPoint, PredictionFile, Row
from pipeline.storage import file_hash, write_text
from pipeline.tasks.task import Task


def model_of(backbone: str, method: str, criterion: str | None) -> str:
    """How a model under a criterion is called in files; no criterion: all layers.

    >>> model_of("albert-base", "joint", "patience"), model_of("minilm", "single_exit", None)
    ('albert-base.joint.patience', 'minilm.single_exit.full')
    """
    return f"{backbone}.{method}.{OperatingPoint(criterion=criterion).name}"


def file_of(task: Task, split: str) -> str:
    """The name of a split's file."""
    return task.server.names[split] if task.server else f"{task.name}.{split}.tsv"


def table(task: Task, row_ids: np.ndarray, answers: np.ndarray) -> str:
    """The file's text: row ids (n,) and answers (n,), class indices or values in label units."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "prediction"])
    writer.writerows(zip(row_ids.tolist(), _shown(task, answers), strict=True))
    return text.getvalue()


def _shown(task: Task, answers: np.ndarray) -> Iterable[str]:
    server = task.server
    if task.kind == "regression":
        if server and server.span:
            return (f"{value:.3f}" for value in np.clip(answers, *server.span))
        return (f"{value:.6g}" for value in answers)
    if server and not server.words:
        return (str(int(value)) for value in answers)
    return (task.label_names[int(value)] for value in answers)


def write_predictions(folder: Path, task: Task, group: Group, rows: Sequence[Row]) -> Iterator[PredictionFile]:
    """Write a file per operating point and split without labels, below `folder`.

    One seed answers, since a server scores one model: the one whose selection rows score best at its operating point
    (the first of equals). Selection rows chose the operating point too, so nothing new is looked at.

    Args:
        group: with its selection traces, and those of splits without labels.
        rows: the group's, of evaluate; bounds, which no model runs, are left out.
    """
    if not any(group.unlabelled.values()):
        return
    for row in rows:
        if row.split != rows[0].split or (row.criterion and not CRITERIA[row.criterion].causal):
            continue
        member, point, selection = _best(row, group.seeds, task.metrics)
        model = model_of(row.backbone, row.method, row.criterion)
        for split, trace in group.unlabelled[member.key].items():
            swept = sweep_at(trace, point)
            path = write_text(folder / model / file_of(task, split), table(task, trace.row_ids, swept.predictions[0]))
            yield PredictionFile(
                model=model,
                backbone=row.backbone,
                method=row.method,
                seed=member.seed,
                key=member.key,
                point=point,
                selection=None if np.isnan(selection) else round(selection, 6),
                split=split,
                rows=trace.rows,
                layer_speedup=round(float(swept.layer_speedup[0]), 6),
                file=path.relative_to(folder).as_posix(),
                sha256=file_hash(path),
            )


def _best(row: Row, seeds: Sequence[Seeded], metrics: tuple[str, ...]) -> tuple[Seeded, OperatingPoint, float]:
    """The seed with the best selection score at its operating point, the point, and that score."""
    every = []
    for member, point in zip(seeds, row.points, strict=True):
        score = sweep_at(member.traces[SELECTION], point).metrics(metrics)["score"]
        every.append((member, point, float(score[0])))
    return max(every, key=lambda entry: -np.inf if np.isnan(entry[2]) else entry[2])
