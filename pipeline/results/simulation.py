"""Results of simulate: Appendix C and Theorem 1."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.results.base import Amount, Count, Fraction, Natural, Part, Result, Text, refuse_repeats

Patience = Annotated[int, Field(ge=0, le=500)]


class RequiredAccuracy(Part):
    """The accuracy that each classifier needs so that patience reaches the original accuracy (Figure 5)."""

    t: Patience
    """Patience."""
    original_accuracy: Fraction
    """Accuracy without early exit."""
    required_accuracy: Fraction
    """Required accuracy of each classifier, exact."""
    reduction: Annotated[float, Field(ge=-1, le=1)]
    """Original accuracy minus required accuracy."""
    simulated_accuracy_at_required: Fraction
    """Simulated accuracy of patience at the required accuracy."""


class Counterexample(Part):
    """A case in which a bound promises a gain that does not exist."""

    t: Patience
    """Patience."""
    q: Fraction
    """Error rate of the internal classifiers."""
    p: Fraction
    """Error rate of the last."""
    gain: Annotated[float, Field(ge=-1, le=0)]
    """Exact gain, at most 0."""


class Bound(Part):
    """One printed form of Theorem 1 against the exact accuracy, over a grid of cases."""

    name: Text
    """Place in the paper."""
    cells: Count
    """Number of cases."""
    claims: Count
    """Cases in which the bound promises a gain."""
    true_claims: Count
    """Promised gains that exist."""
    false_claims: Count
    """Promised gains that do not exist."""
    missed: Count
    """Gains that exist and are not promised."""
    counterexample: Counterexample | None
    """The worst false claim."""

    def check(self) -> None:
        if self.true_claims + self.false_claims != self.claims or self.claims + self.missed > self.cells:
            raise ValueError(
                f"claims {self.claims} are not true_claims {self.true_claims} and false_claims {self.false_claims}, or "
                f"exceed cells {self.cells} with missed {self.missed}"
            )
        if (self.counterexample is None) != (self.false_claims == 0):
            raise ValueError(f"counterexample does not go with false_claims {self.false_claims}")


class ExamplePoint(Part):
    """The paper's example (q = 0.2, p = 0.1) at one patience."""

    t: Patience
    """Patience."""
    exact_accuracy: Fraction
    """Accuracy by dynamic programming."""
    simulated_accuracy: Fraction
    """Accuracy by simulation."""
    mean_layers: Annotated[Amount, Field(ge=1)]
    """Mean layers run."""


class Simulation(Result):
    """`outputs/simulate/simulate.json`."""

    made_by: ClassVar[str] = "simulate"
    layers: Natural
    """Number of classifiers, n."""
    samples: Natural
    """Number of simulated rows."""
    rows: tuple[RequiredAccuracy, ...]
    """A row per patience and original accuracy."""
    theorem: tuple[Bound, ...]
    """The three printed bounds."""
    example: tuple[ExamplePoint, ...]
    """A point per patience."""

    def check(self) -> None:
        refuse_repeats("rows", ((row.t, row.original_accuracy) for row in self.rows))
        refuse_repeats("theorem", (bound.name for bound in self.theorem))
        refuse_repeats("example", (point.t for point in self.example))
        if any(point.mean_layers > self.layers for point in self.example):
            raise ValueError(f"example: mean_layers exceed the {self.layers} layers")
        if {row.t for row in self.rows} != {point.t for point in self.example}:
            raise ValueError("rows and example have other patiences")
