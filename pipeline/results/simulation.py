"""Results of simulate: Appendix C and Theorem 1."""

from typing import ClassVar

from pipeline.results.base import Part, Result


class RequiredAccuracy(Part):
    """The accuracy that each classifier needs so that patience reaches the original accuracy (Figure 5)."""

    t: int
    """Patience."""
    original_accuracy: float
    """Accuracy without early exit."""
    required_accuracy: float
    """Required accuracy of each classifier, exact."""
    reduction: float
    """Original accuracy minus required accuracy."""
    simulated_accuracy_at_required: float
    """Simulated accuracy of patience at the required accuracy."""


class Counterexample(Part):
    """A case in which a bound promises a gain that does not exist."""

    t: int
    """Patience."""
    q: float
    """Error rate of the internal classifiers."""
    p: float
    """Error rate of the last."""
    gain: float
    """Exact gain, at most 0."""


class Bound(Part):
    """One printed form of Theorem 1 against the exact accuracy, over a grid of cases."""

    name: str
    """Place in the paper."""
    cells: int
    """Number of cases."""
    claims: int
    """Cases in which the bound promises a gain."""
    true_claims: int
    """Promised gains that exist."""
    false_claims: int
    """Promised gains that do not exist."""
    missed: int
    """Gains that exist and are not promised."""
    counterexample: Counterexample | None
    """The worst false claim."""


class ExamplePoint(Part):
    """The paper's example (q = 0.2, p = 0.1) at one patience."""

    t: int
    """Patience."""
    exact_accuracy: float
    """Accuracy by dynamic programming."""
    simulated_accuracy: float
    """Accuracy by simulation."""
    mean_layers: float
    """Mean layers run."""


class Simulation(Result):
    """`outputs/simulate/simulate.json`."""

    made_by: ClassVar[str] = "simulate"
    layers: int
    """Number of classifiers, n."""
    samples: int
    """Number of simulated rows."""
    rows: tuple[RequiredAccuracy, ...]
    """A row per patience and original accuracy."""
    theorem: tuple[Bound, ...]
    """The three printed bounds."""
    example: tuple[ExamplePoint, ...]
    """A point per patience."""
