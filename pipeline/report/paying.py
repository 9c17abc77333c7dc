"""Does early exit pay? Each trained model under the criterion that selection rows prefer, against all of its layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pipeline.evaluation.diagnosis import Learned
from pipeline.evaluation.intervals import median_interval, sign_test
from pipeline.evaluation.preferred import early_rows, preference
from pipeline.report.clock import WORTH, Clock
from pipeline.report.stored import SINGLE_EXIT, TaskResults
from pipeline.report.verdicts import paired, word
from pipeline.results import Diagnosis, ModelGroup, OverSeeds, Row

BEARABLE = 0.005
"""Loss of score, as a share, beyond which the median over seeds is a cost, however wide their range."""
SURE = 0.05
"""Two-sided p of the sign test over rows below which a loss of one seed is a loss."""
FEWEST = 6
"""Rows, all of them lost, of which the sign test can first tell that they are no chance: p is 0.03, of five 0.06."""
Answer = Literal[
    "pays", "costs", "too few rows to tell", "not settled by the clock", "gains nothing", "learned nothing"
]


@dataclass(frozen=True)
class Change:
    """What one seed's rows lose and win by leaving early.

    Attributes:
        lost, won: number of rows that leave with a wrong answer where the last exit is right, and the reverse.
        rows: all rows.
    """

    seed: int
    lost: int
    won: int
    rows: int

    @property
    def p(self) -> float:
        """Of the sign test over the rows lost and won."""
        return sign_test(self.lost, self.won)

    @property
    def told(self) -> bool:
        """Whether the rows alone tell that more are lost than won."""
        return self.lost > self.won and self.p < SURE


@dataclass(frozen=True)
class Deal:
    """One trained method on one reported split: what leaving early gives, and what it takes.

    Attributes:
        row: the criterion at its operating point.
        full: the same models through all layers.
        models: their diagnoses, in the order of the seeds.
        gap: score minus that of all layers, paired by seed.
        changes: of each seed; none for a regression.
        clock: wall time at batch 1; None where it was not timed.
        learned: which seeds, through all layers, know more than an answer that is the same for every row.
        plain: the row of the plainly trained model of the same backbone; None where there is none.
    """

    task: TaskResults
    group: ModelGroup
    row: Row
    full: Row
    models: tuple[Diagnosis, ...]
    gap: OverSeeds
    changes: tuple[Change, ...]
    clock: Clock | None
    learned: Learned
    plain: Row | None

    @property
    def answer(self) -> Answer:
        """pays: faster, hardly worse than all layers, and not behind them; costs: faster, and worse; else nothing is
        gained.

        There is no answer where the model has learned nothing, nor a yes or no where neither clock nor rows give one.
        Where some seeds have learned nothing, the others alone say what is lost.
        """
        if self.learned.nothing:
            return "learned nothing"
        if self.gained is None:
            return "not settled by the clock"
        if not self.gained:
            return "gains nothing"
        gap = self._gap_of_learned
        hardly = gap.centre is not None and gap.centre >= -BEARABLE
        if hardly and not self.behind:
            return "pays"
        return "too few rows to tell" if self.too_few else "costs"

    @property
    def gained(self) -> bool | None:
        """Whether it is faster: by the clock, or in layers where it was not timed; None where repeats disagree."""
        return (self.row.layer_speedup.centre or 0) >= WORTH if self.clock is None else self.clock.gained

    @property
    def behind(self) -> bool:
        """Behind on every seed that has learned; with one, by the sign test over rows."""
        changes = self._changes_of_learned
        return changes[0].told if len(changes) == 1 else word(self._gap_of_learned).startswith("behind")

    @property
    def too_few(self) -> bool:
        """Whether the rows cannot tell a loss from chance: on no seed does the sign test, and in the median fewer rows
        are lost, less those won, than it needs."""
        changes = self._changes_of_learned
        told = any(change.told for change in changes)
        return bool(changes) and not told and median(change.lost - change.won for change in changes) < FEWEST

    @property
    def _gap_of_learned(self) -> OverSeeds:
        of_seed = zip(self.row.seeds, self.gap.values, strict=False)  # no value where one seed's is not defined
        values = [value for seed, value in of_seed if value is not None and self.learned.by_seed.get(seed, True)]
        return median_interval(values) if values else self.gap

    @property
    def _changes_of_learned(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if self.learned.by_seed.get(change.seed, True))

    @property
    def lost(self) -> float | None:
        """Share of rows lost, in the median over seeds; None for a regression."""
        return median(change.lost / change.rows for change in self.changes) if self.changes else None

    @property
    def won(self) -> float | None:
        """Share of rows won, in the median over seeds; None for a regression."""
        return median(change.won / change.rows for change in self.changes) if self.changes else None

    @property
    def constant(self) -> float | None:
        """Score of the class that does best as the answer to every row; None for a regression."""
        return self.models[0].constant.score


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
    full, models = task.all_layers(row), task.diagnosed(row)
    assert row.criterion is not None  # a candidate leaves early
    found = [(model, model.outcome(row.criterion)) for model in models]
    return Deal(
        task=task,
        group=group,
        row=row,
        full=full,
        models=models,
        gap=paired(row, full),
        changes=tuple(
            Change(model.seed, outcome.lost.rows, outcome.won.rows, model.rows)
            for model, outcome in found
            if outcome.lost is not None and outcome.won is not None
        ),
        clock=Clock.alone(row, task.latency.rows if task.latency else ()),
        learned=task.learned(row),
        plain=next((one for one in task.rows if _of(one) == (split, row.backbone, SINGLE_EXIT)), None),
    )


def _of(row: Row) -> tuple[str, str, str]:
    return row.split, row.backbone, row.method
