"""Predictions for rows without labels, at the operating points that evaluate chose, in files that others read.

GLUE's server has a format of its own (gluebenchmark.com/faq): one file a task with the header `index`, `prediction`,
class names for the inference tasks, 0 or 1 for the others, a similarity from 0 to 5. Other tasks get the same table
with class names, or values as they are.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.criteria import CRITERIA, Criterion, make
from pipeline.evaluation.group import SELECTION, Seeded
from pipeline.evaluation.sweep import NEVER, sweep
from pipeline.evaluation.trace import Trace
from pipeline.storage import file_hash, write_text
from pipeline.tasks.task import Task

PREDICTIONS = Path("outputs/predictions")
"""One folder per task."""
ALL_LAYERS = "full"


def model_of(backbone: str, method: str, criterion: str | None) -> str:
    """How a model under an exit rule is called in files; no rule: all layers.

    >>> model_of("albert-base", "joint", "patience"), model_of("minilm", "single_exit", None)
    ('albert-base.joint.patience', 'minilm.single_exit.full')
    """
    return f"{backbone}.{method}.{criterion or ALL_LAYERS}"


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


def write_predictions(
    folder: Path,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[Seeded],
    unlabelled: Mapping[str, Mapping[str, Trace]],
) -> list[dict[str, Any]]:
    """Write a file per operating point and split without labels, below `folder`.

    One seed answers, since a server scores one model: the one whose selection rows score best at its operating point
    (the first of equals). Selection rows chose the operating point too, so nothing new is looked at.

    Args:
        rows: of evaluate, of one group; bounds, which no model runs, are left out.
        seeds: the group's, with their selection traces.
        unlabelled: key to its traces by split.

    Returns:
        What the files are, for the index: docs/results-schema.md.
    """
    written = []
    for row in rows:
        name = row["criterion"]
        if row["split"] != rows[0]["split"] or (name and not CRITERIA[name].causal):
            continue
        member, rule, threshold, score = _best(row, seeds, task.metrics)
        model = model_of(row["backbone"], row["method"], name)
        for split, trace in unlabelled[member.key].items():
            swept = sweep(trace, rule, np.array([threshold]))
            path = write_text(folder / model / file_of(task, split), table(task, trace.row_ids, swept.predictions[0]))
            about = {label: row[label] for label in ("backbone", "method", "criterion")}
            about |= {"model": model, "seed": member.seed, "key": member.key, "split": split, "rows": trace.rows}
            about |= {"threshold": None if np.isinf(threshold) else threshold, "selection": _defined(score)}
            about |= {"layer_speedup": round(float(swept.layer_speedup[0]), 6)}
            about |= {"file": path.relative_to(folder).as_posix(), "sha256": file_hash(path)}
            written.append(about)
    return written


def _best(
    row: Mapping[str, Any], seeds: Sequence[Seeded], metrics: tuple[str, ...]
) -> tuple[Seeded, Criterion, float, float]:
    """The seed with the best selection score at its operating point, the point, and that score."""
    found = []
    for i, member in enumerate(seeds):
        name, value = row["criterion"], row["thresholds"][i]
        rule = make(name, row["settings"], row["fitted"][i]) if name else make("fixed")
        threshold = NEVER if value is None else float(value)
        score = sweep(member.traces[SELECTION], rule, np.array([threshold])).metrics(metrics)["score"]
        found.append((member, rule, threshold, float(score[0])))
    return max(found, key=lambda entry: -np.inf if np.isnan(entry[3]) else entry[3])


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
