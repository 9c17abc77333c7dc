"""The rows that two runs both have: scores, speed-ups and settings, and tests that pair seeds and pair examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.commands.compare_runs import Run
from pipeline.errors import ArtifactError
from pipeline.evaluation.intervals import sign_test
from pipeline.evaluation.point import sweep_at
from pipeline.evaluation.trace import Trace, load_trace
from pipeline.report.verdicts import paired
from pipeline.results import OverSeeds, Row, TraceIndex

Name = tuple[str, str, str, str, str]
"""Task, report split, backbone, method, and criterion or "all layers"."""


@dataclass(frozen=True)
class OnExamples:
    """The same examples, answered by both runs' models of the same seeds.

    Attributes:
        rows: how many.
        better, worse: those that the second run has right (a regression: nearer) on more seeds, or in the mean over
            seeds, and those that the first has.
        p: two-sided, of the sign test; with one seed and classes McNemar's exact test.
    """

    rows: int
    better: int
    worse: int
    p: float


@dataclass(frozen=True)
class Pair:
    """One row of both runs.

    Attributes:
        gap: the second's score minus the first's, paired by seed; undefined where they share no seed.
        examples: None where the traces are not there, or are of other examples, as `why_not` says.
    """

    name: Name
    before: Row
    after: Row
    gap: OverSeeds
    examples: OnExamples | None
    why_not: str = ""

    @property
    def moved(self) -> bool:
        """Whether a number differs."""
        numbers = ("score", "layer_speedup", "flop_speedup", "points")
        return any(getattr(self.before, name) != getattr(self.after, name) for name in numbers)


def rows_of(run: Run) -> dict[Name, Row]:
    """Every row of a run by its name."""
    return {
        (task, row.split, row.backbone, row.method, row.criterion or "all layers"): row
        for task, evaluated in run.evaluated.items()
        for row in evaluated.rows
    }


def pairs(first: Run, second: Run) -> list[Pair]:
    """The rows that both have, in the second's order."""
    before, after = rows_of(first), rows_of(second)
    return [_pair(first, second, name, before[name], row) for name, row in after.items() if name in before]


def _pair(first: Run, second: Run, name: Name, before: Row, after: Row) -> Pair:
    found = _on_examples(first, second, name[0], before, after)
    examples, why_not = (found, "") if isinstance(found, OnExamples) else (None, found)
    return Pair(name, before, after, paired(after, before), examples, why_not)


def _on_examples(first: Run, second: Run, task: str, before: Row, after: Row) -> OnExamples | str:
    seeds = [seed for seed in after.seeds if seed in before.seeds]
    indices = first.traces(task), second.traces(task)
    if not seeds:
        return "no seed in common"
    if indices[0] is None or indices[1] is None:
        return "no traces"
    gains = []
    for seed in seeds:
        sides = []
        for run, index, row in zip((first, second), indices, (before, after), strict=True):
            at = row.seeds.index(seed)
            trace = _trace(run, index, row.keys[at], row.split) if index else None
            if trace is None:
                return "no traces"
            sides.append((trace, sweep_at(trace, row.points[at]).predictions[0]))
        (one, earlier), (other, later) = sides
        if not (np.array_equal(one.row_ids, other.row_ids) and np.array_equal(one.labels, other.labels)):
            return "other examples"
        gains.append(_loss(one, earlier) - _loss(other, later))
    gain = np.mean(gains, axis=0)
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    return OnExamples(len(gain), better, worse, sign_test(better, worse))


def _loss(trace: Trace, predictions: np.ndarray) -> np.ndarray:
    """Of each row: whether the answer is wrong, or how far off it is, (n,)."""
    if trace.kind == "regression":
        return np.asarray(np.abs(predictions - trace.labels))
    return np.asarray(predictions != trace.labels, dtype=np.float64)


def _trace(run: Run, index: TraceIndex, key: str, split: str) -> Trace | None:
    """The trace that a row was scored on; None where it is not there."""
    entry = next((entry for entry in index.traces if (entry.key, entry.split) == (key, split)), None)
    path = run.workspace.trace(index.task, key, split)
    return _loaded(path.as_posix(), run.remedy) if entry is not None and path.is_file() else None


@lru_cache(maxsize=8)
def _loaded(path: str, remedy: str) -> Trace:
    from pathlib import Path

    return load_trace(Path(path), remedy)


def only_in(one: Run, other: Run) -> Iterator[str]:
    """Names of a run's rows that another has not, one line for each model."""
    missing: dict[tuple[str, ...], list[str]] = {}
    there = rows_of(other)
    for name in rows_of(one):
        if name not in there:
            missing.setdefault(name[:4], []).append(name[4])
    for (task, split, backbone, method), criteria in missing.items():
        yield f"{task} {split}, {backbone}, {method}: {', '.join(criteria)}"


def refuse_nothing_in_common(first: Run, second: Run) -> None:
    """Raise ArtifactError where no row can be compared."""
    if not rows_of(first).keys() & rows_of(second).keys():
        tasks = [", ".join(run.evaluated) for run in (first, second)]
        raise ArtifactError(
            f"compare: {first.name} ({tasks[0]}) and {second.name} ({tasks[1]}) have no task, model and criterion in "
            "common; give two runs that share one"
        )
