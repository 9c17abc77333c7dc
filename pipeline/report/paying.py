"""Does early exit pay? Each trained model under the criterion that selection rows prefer, against all of its layers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isclose, isfinite
from statistics import median
from typing import Literal

from pipeline.evaluation.criteria import CRITERIA
from pipeline.evaluation.intervals import sign_test
from pipeline.report.stored import Curve, TaskResults
from pipeline.report.verdicts import paired, word
from pipeline.results import ModelGroup, OverSeeds, Row

WORTH = 1.05
"""Speed-up below which nothing is gained: by the clock where it was timed, else in layers."""
BEARABLE = 0.005
"""Loss of score, as a share, beyond which the median over seeds is a cost, however wide their range."""
SURE = 0.05
"""Two-sided p of the sign test over rows from which on a loss of one seed is a loss."""
Answer = Literal["pays", "costs", "gains nothing"]


@dataclass(frozen=True)
class Deal:
    """One trained method on one reported split: what leaving early gives, and what it takes.

    Attributes:
        row: the criterion at its operating point.
        full: the same models through all layers.
        gap: score minus that of all layers, paired by seed.
        lost, won: share of rows that leave with a wrong answer where the last exit is right, and the reverse: medians
            over seeds; None for a regression.
        p: of the sign test over the rows lost and won, with one seed; None otherwise.
        measured: wall-time speed-up at batch 1; None where it was not timed.
    """

    task: TaskResults
    group: ModelGroup
    row: Row
    full: Row
    gap: OverSeeds
    lost: float | None
    won: float | None
    p: float | None
    measured: float | None

    @property
    def answer(self) -> Answer:
        """pays: faster, hardly worse than all layers, and not behind them; costs: faster; else nothing is gained."""
        gained = self.row.layer_speedup.centre if self.measured is None else self.measured
        if (gained or 0) < WORTH:
            return "gains nothing"
        hardly = self.gap.centre is not None and self.gap.centre >= -BEARABLE
        return "pays" if hardly and not self.behind else "costs"

    @property
    def behind(self) -> bool:
        """Behind on every seed; with one seed, by the sign test over rows."""
        if self.p is not None:
            return self.p < SURE and (self.lost or 0) > (self.won or 0)
        return word(self.gap).startswith("behind")


def deals(tasks: Iterable[TaskResults]) -> list[Deal]:
    """One per task, report split and trained method with early exits, in the order of the rows."""
    return [
        _deal(task, group, split)
        for task in tasks
        for split in task.splits
        for group in task.groups
        if _candidates(task, group, split)
    ]


def best_of(every: Iterable[Deal]) -> list[Deal]:
    """The deal of each task and split whose model selection rows prefer."""
    out: dict[tuple[str, str], Deal] = {}
    for deal in every:
        place = deal.task.name, deal.row.split
        if place not in out or preference(deal.task, deal.row) > preference(out[place].task, out[place].row):
            out[place] = deal
    return list(out.values())


def early_rows(task: TaskResults, split: str) -> Iterator[Row]:
    """The rows under an exit rule that can run, and under which rows leave at different exits."""
    for row in task.rows:
        if row.split != split or row.criterion is None:
            continue
        if CRITERIA[row.criterion].causal and CRITERIA[row.criterion].adaptive:
            yield row


def _candidates(task: TaskResults, group: ModelGroup, split: str) -> list[Row]:
    return [row for row in early_rows(task, split) if (row.backbone, row.method) == (group.backbone, group.method)]


def _deal(task: TaskResults, group: ModelGroup, split: str) -> Deal:
    row = max(_candidates(task, group, split), key=lambda row: preference(task, row))
    full = next(
        other
        for other in task.rows
        if (other.split, other.backbone, other.method, other.criterion) == (split, row.backbone, row.method, None)
    )
    outcomes = [
        (outcome.lost, outcome.won)
        for model in task.evaluated.diagnosis
        if (model.split, model.backbone, model.method) == (split, row.backbone, row.method)
        for outcome in model.criteria
        if outcome.criterion == row.criterion
    ]
    pairs = [(lost, won) for lost, won in outcomes if lost is not None and won is not None]
    p = None
    if len(pairs) == len(row.seeds) == 1:
        p = sign_test(pairs[0][0].rows, pairs[0][1].rows)
    return Deal(
        task=task,
        group=group,
        row=row,
        full=full,
        gap=paired(row, full),
        lost=median(lost.share for lost, _ in pairs) if pairs else None,
        won=median(won.share for _, won in pairs) if pairs else None,
        p=p,
        measured=_measured(task, row),
    )


def preference(task: TaskResults, row: Row) -> tuple[bool, float, float]:
    """What the rows that chose the thresholds say of an operating point, the best last.

    Whether it meets the chooser's condition, then the medians of score and speed-up; where the score is bounded, of
    speed-up and score.

    Report rows do not choose: the best of several criteria on the rows that are reported looks better than it is.
    """
    curves = {
        curve.seed: curve
        for curve in task.curves
        if (curve.backbone, curve.method, curve.criterion, curve.split)
        == (row.backbone, row.method, row.criterion, row.selected_on)
    }
    found = [
        _at(curves[seed], point.limit) for seed, point in zip(row.seeds, row.points, strict=True) if seed in curves
    ]
    points = [point for point in found if point is not None]
    if len(points) < len(row.seeds):
        return row.in_window, -2.0, 0.0  # below every score
    score, speed = median(score for score, _ in points), median(speed for _, speed in points)
    return (row.in_window, speed, score) if row.rule == "risk" else (row.in_window, score, speed)


def _at(curve: Curve, threshold: float) -> tuple[float, float] | None:
    """Score and layer speed-up of a setting, which a curve has in fewer digits."""
    near = (p for p in curve.points if isclose(p.threshold, threshold, rel_tol=1e-5, abs_tol=1e-7))
    point = min(near, key=lambda p: abs(p.threshold - threshold) if isfinite(threshold) else 0.0, default=None)
    return None if point is None else (point.score, point.layer_speedup)


def _measured(task: TaskResults, row: Row) -> float | None:
    timed = task.latency.rows if task.latency else ()
    return next(
        (
            entry.measured_speedup
            for entry in timed
            if (entry.backbone, entry.method, entry.point.criterion) == (row.backbone, row.method, row.criterion)
            and entry.mode == "batch 1"
        ),
        None,
    )
