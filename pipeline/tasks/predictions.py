"""Files of predictions for rows without labels, at the operating points that evaluate chose.

GLUE's server has its own format (gluebenchmark.com/faq): one file per task with the header `index`, `prediction`; class
names for the inference tasks, 0 or 1 for the others, a similarity from 0 to 5. Files of other tasks have the same
columns, with class names or unchanged values.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.groups import Group, SeedTraces
from pipeline.evaluation.point import sweep_at
from pipeline.results import OperatingPoint, PredictionFile, Row
from pipeline.results.traces import SELECTION
from pipeline.storage import file_hash, write_text
from pipeline.tasks.task import Task


def model_of(backbone: str, method: str, criterion: str | None) -> str:
    """The name of a model with a criterion in file names; no criterion means all layers.

    >>> model_of("albert-base", "joint", "patience"), model_of("minilm", "single_exit", None)
    ('albert-base.joint.patience', 'minilm.single_exit.full')
    """
    return f"{backbone}.{method}.{OperatingPoint(criterion=criterion).name}"


def file_of(task: Task, split: str) -> str:
    """The name of a split's file."""
    return task.server.names[split] if task.server else f"{task.name}.{split}.tsv"


def table(task: Task, row_ids: np.ndarray, answers: np.ndarray) -> str:
    """The text of a file with row ids (n,) and answers (n,), class indices or values in label units."""
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

    A server scores one model, so one seed answers: the one with the best selection score at its operating point (the
    first of equals). Selection rows also chose the operating point.

    Args:
        group: the group with its selection traces, and those of splits without labels.
        rows: the group's rows of evaluate; bounds are left out.
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


def _best(row: Row, seeds: Sequence[SeedTraces], metrics: tuple[str, ...]) -> tuple[SeedTraces, OperatingPoint, float]:
    """The seed with the best selection score at its operating point, the point, and that score."""
    every = []
    for member, point in zip(seeds, row.points, strict=True):
        score = sweep_at(member.traces[SELECTION], point).metrics(metrics)["score"]
        every.append((member, point, float(score[0])))
    return max(every, key=lambda entry: -np.inf if np.isnan(entry[2]) else entry[2])
