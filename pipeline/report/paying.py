"""Does early exit pay? Each trained model under the criterion that selection rows prefer, against all of its layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pipeline.evaluation.diagnosis import learned
from pipeline.evaluation.intervals import sign_test
from pipeline.evaluation.preferred import early_rows, preference
from pipeline.report.stored import TaskResults
from pipeline.report.verdicts import paired, word
from pipeline.results import ModelGroup, OverSeeds, Row

WORTH = 1.05
"""Speed-up below which nothing is gained: by the clock where it was timed, else in layers."""
BEARABLE = 0.005
"""Loss of score, as a share, beyond which the median over seeds is a cost, however wide their range."""
SURE = 0.05
"""Two-sided p of the sign test over rows from which on a loss of one seed is a loss."""
Answer = Literal["pays", "costs", "gains nothing", "learned nothing"]


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
        learned: whether all layers know more than an answer that is the same for every row.
        constant: the score of the best such answer; None for a regression.
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
    learned: bool
    constant: float | None

    @property
    def answer(self) -> Answer:
        """pays: faster, hardly worse than all layers, and not behind them; costs: faster; else nothing is gained.

        Where the model has learned nothing there is no answer: every exit is as good as the last.
        """
        if not self.learned:
            return "learned nothing"
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
        place, curves = (deal.task.name, deal.row.split), deal.task.curves
        if place not in out or preference(deal.row, curves) > preference(out[place].row, curves):
            out[place] = deal
    return list(out.values())


def _candidates(task: TaskResults, group: ModelGroup, split: str) -> list[Row]:
    return [row for row in early_rows(task.rows, split) if (row.backbone, row.method) == (group.backbone, group.method)]


def _deal(task: TaskResults, group: ModelGroup, split: str) -> Deal:
    row = max(_candidates(task, group, split), key=lambda row: preference(row, task.curves))
    full = next(
        other
        for other in task.rows
        if (other.split, other.backbone, other.method, other.criterion) == (split, row.backbone, row.method, None)
    )
    models = [
        model
        for model in task.evaluated.diagnosis
        if (model.split, model.backbone, model.method) == (split, row.backbone, row.method)
    ]
    outcomes = [
        (outcome.lost, outcome.won)
        for model in models
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
        learned=learned(full, models),
        constant=models[0].constant.score,
    )


def _measured(task: TaskResults, row: Row) -> float | None:
    timed = task.latency.rows if task.latency else ()
    return next(
        (
            entry.measured_speedup
            for entry in timed
            if (entry.backbone, entry.method, entry.point.criterion) == (row.backbone, row.method, row.criterion)
            and (entry.mode, entry.engine, entry.precision) == ("batch 1", "pytorch", "float32")
        ),
        None,
    )
