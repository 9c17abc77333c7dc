"""Diagnosis of a model: what its last exit knows, and why early exit helps or hurts on its trace."""

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
    lost_by_class: tuple[Count, ...] | None
    """Of the lost rows, those of each class; None for a regression."""
    won_by_class: tuple[Count, ...] | None
    """Of the won rows, those of each class; None for a regression."""

    def check(self) -> None:
        parts = (self.lost, self.won, self.lost_rows, self.won_rows, self.lost_by_class, self.won_by_class)
        if len({part is None for part in parts}) > 1:
            raise ValueError("some of lost, won, and these by row and by class, are missing")
        for name, every, by_class in (
            ("lost", self.lost, self.lost_by_class),
            ("won", self.won, self.won_by_class),
        ):
            if every is not None and by_class is not None and sum(by_class) != every.rows:
                raise ValueError(f"{name}_by_class: {sum(by_class)} rows, and {name} has {every.rows}")


class Constant(Part):
    """The last exit beside an answer that is the same for every row: whether the model has learned anything."""

    score: Score | None
    """The task's score of the class that does best as the answer to every row; None for a regression, where a constant
    has no correlation."""
    p: Fraction
    """Probability of answers that depend on the labels as much as the last exit's do, had it learned nothing: the
    chi-squared test of independence; for a regression that of the Pearson correlation."""


class OfClass(Part):
    """One class of a trace, and what the last exit makes of it."""

    name: str
    """Name of the class; its number from 0 where the trace has no names."""
    rows: Count
    """Number of rows of this class."""
    right: Count
    """Of these rows, those that the last exit has right."""
    answered: Count
    """Number of rows, of any class, that the last exit says are of this one."""

    def check(self) -> None:
        if self.right > min(self.rows, self.answered):
            raise ValueError(f"right: {self.right} of {self.rows} rows and {self.answered} answers")


class Findings(Part):
    """Why early exit helps or hurts on a trace."""

    rows: Natural
    """Number of rows, all labelled."""
    layers: tuple[Amount, ...]
    """Layer of each exit."""
    constant: Constant
    """The last exit beside an answer that is the same for every row."""
    classes: tuple[OfClass, ...] | None
    """Each class; None for a regression."""
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

    def outcome(self, criterion: str) -> Outcome:
        """The outcome of a criterion that is among them."""
        return next(outcome for outcome in self.criteria if outcome.criterion == criterion)

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
        for_classes = [self.classes, self.overthinking, self.agreement, self.error, *(o.lost for o in self.criteria)]
        of_probabilities = {self.calibration is None, self.entropy is None}
        mixed = len({part is None for part in for_classes}) > 1 or len(of_probabilities) > 1
        if mixed or (self.calibration and self.agreement is None):
            raise ValueError("some parts are those of a regression and some are not")
        if self.classes is not None:
            self._check_classes(self.classes)

    def _check_classes(self, classes: tuple[OfClass, ...]) -> None:
        for name in ("rows", "answered"):
            if sum(getattr(one, name) for one in classes) != self.rows:
                raise ValueError(f"classes: {name} are not {self.rows} in all")
        for outcome in self.criteria:
            by_class = {"lost_by_class": outcome.lost_by_class, "won_by_class": outcome.won_by_class}
            refuse_lengths(len(classes), "classes", **by_class)


class Diagnosis(Findings):
    """The findings on one model and one report split; of a model of one exit, under no criterion."""

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
