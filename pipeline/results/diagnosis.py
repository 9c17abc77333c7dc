"""Diagnosis of a multi-exit model: why early exit helps or hurts on its trace."""

from pipeline.results.base import (
    Amount,
    Count,
    Fraction,
    Name,
    Natural,
    Part,
    Score,
    Seed,
    Text,
    refuse_lengths,
    refuse_repeats,
)
from pipeline.results.numbers import Share


class Oracle(Part):
    """The bound of leaving at the first exit that is right, which no criterion can beat with these exits."""

    score: Score | None
    """The task's score."""
    layer_speedup: Amount | None
    """As in a row."""
    flop_speedup: Amount | None
    """As in a row."""


class Calibration(Part):
    """Expected calibration error: accuracy against confidence."""

    bins: Natural
    """Number of bins of the confidence."""
    error: tuple[Fraction | None, ...]
    """Calibration error of each exit."""


class Outcome(Part):
    """Where rows leave under a criterion at its operating point, and the rows that it loses and wins."""

    criterion: Text
    """Name of the criterion."""
    threshold: float | None
    """Its threshold; None: never."""
    exits: tuple[Count, ...]
    """Number of rows that leave at each exit."""
    lost: Share | None
    """Rows with a wrong early answer and a right last exit; None for a regression."""
    won: Share | None
    """Rows with a right early answer and a wrong last exit; None for a regression."""
    lost_rows: tuple[int, ...] | None
    """Ids of the first ten lost rows."""
    won_rows: tuple[int, ...] | None
    """Ids of the first ten won rows."""

    def check(self) -> None:
        parts = (self.lost, self.won, self.lost_rows, self.won_rows)
        if len({part is None for part in parts}) > 1:
            raise ValueError("some of lost, won, lost_rows and won_rows are missing")


class Constant(Part):
    """The last exit beside an answer that is the same for every row: whether the model has learned anything."""

    score: Score | None
    """The task's score of the class that does best as the answer to every row; None for a regression, where a constant
    has no correlation."""
    p: Fraction
    """Probability of answers that depend on the labels as much as the last exit's do, had it learned nothing: the
    chi-squared test of independence; for a regression that of the Pearson correlation."""


class Findings(Part):
    """Why early exit helps or hurts on a trace."""

    rows: Natural
    """Number of rows, all labelled."""
    layers: tuple[Amount, ...]
    """Layer of each exit."""
    constant: Constant
    """The last exit beside an answer that is the same for every row."""
    overthinking: Share | None
    """Rows that some exit has right and the last wrong; None for a regression."""
    oracle: Oracle
    """The oracle's score and speed-up."""
    agreement: tuple[tuple[Fraction | None, ...], ...] | None
    """Share of rows with the same answer at two exits, exits x exits; None for a regression."""
    calibration: Calibration | None
    """Calibration of each exit; None for a regression, and for hard labels."""
    error: tuple[Fraction, ...] | None
    """Share of rows that each exit alone has wrong; None for a regression."""
    entropy: tuple[Amount, ...] | None
    """Mean entropy of each exit's prediction, in nats; None for a regression, and for hard labels."""
    criteria: tuple[Outcome, ...]
    """Each criterion at its operating point."""

    def check(self) -> None:
        refuse_repeats("criteria", (outcome.criterion for outcome in self.criteria))
        exits = len(self.layers)
        per_exit = {"agreement": self.agreement, "error": self.error, "entropy": self.entropy}
        refuse_lengths(max(exits, 1), "exits", layers=self.layers, **per_exit)
        for row in self.agreement or ():
            refuse_lengths(exits, "exits", agreement=row)
        if self.calibration is not None:
            refuse_lengths(exits, "exits", calibration=self.calibration.error)
        for outcome in self.criteria:
            refuse_lengths(exits, "exits", **{f"criteria.{outcome.criterion}.exits": outcome.exits})
            if sum(outcome.exits) != self.rows:
                raise ValueError(f"criteria.{outcome.criterion}.exits: {sum(outcome.exits)} rows leave, of {self.rows}")
        for_classes = [self.overthinking, self.agreement, self.error, *(o.lost for o in self.criteria)]
        of_probabilities = {self.calibration is None, self.entropy is None}
        mixed = len({part is None for part in for_classes}) > 1 or len(of_probabilities) > 1
        if mixed or (self.calibration and self.agreement is None):
            raise ValueError("some parts are those of a regression and some are not")


class Diagnosis(Findings):
    """The findings on one multi-exit model and one report split."""

    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    split: Name
    """Name of the report split."""
    seed: Seed
    """Seed of the trial."""
    key: Name
    """Key of the trial."""
