"""What simulate leaves: Appendix C and Theorem 1."""

from typing import ClassVar

from pipeline.results.base import Part, Result


class RequiredAccuracy(Part):
    """What each classifier needs so that patience reaches the original accuracy (Figure 5)."""

    t: int
    """Patience."""
    original_accuracy: float
    """Without early exit."""
    required_accuracy: float
    """Of each classifier, exact."""
    reduction: float
    """How much less that is."""
    simulated_accuracy_at_required: float
    """By drawing answers, at the required accuracy."""


class Counterexample(Part):
    """A case in which a bound promises a gain that is not there."""

    t: int
    """Patience."""
    q: float
    """Error rate of the internal classifiers."""
    p: float
    """Error rate of the last."""
    gain: float
    """Exact gain, negative or 0."""


class Bound(Part):
    """One printed form of Theorem 1 against the exact accuracy, over a grid of cases."""

    name: str
    """Where the paper prints it."""
    cells: int
    """Cases."""
    claims: int
    """Gains promised."""
    true_claims: int
    """Of these there."""
    false_claims: int
    """Of these not there."""
    missed: int
    """Gains not promised."""
    counterexample: Counterexample | None
    """The worst false claim."""


class ExamplePoint(Part):
    """The paper's example (q = 0.2, p = 0.1) at one patience."""

    t: int
    """Patience."""
    exact_accuracy: float
    """By dynamic programming."""
    simulated_accuracy: float
    """By drawing answers."""
    mean_layers: float
    """Layers run."""


class Simulation(Result):
    """`outputs/simulate/simulate.json`."""

    made_by: ClassVar[str] = "simulate"
    layers: int
    """Classifiers, n."""
    samples: int
    """Rows drawn."""
    rows: tuple[RequiredAccuracy, ...]
    """By patience and original accuracy."""
    theorem: tuple[Bound, ...]
    """The three printed bounds."""
    example: tuple[ExamplePoint, ...]
    """By patience."""
