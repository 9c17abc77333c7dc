"""The contract of an exit criterion: a causal score per row after each exit, compared with a threshold.

After exit j a criterion has seen exits 1..j and gives each row a score. The row leaves at the first exit whose
score reaches the threshold (score >= threshold), else at the last exit. Laws that every criterion keeps (held by
tests/test_criteria.py): it never looks past its exit; a higher threshold never exits earlier; a threshold of
infinity is the full model; rows do not influence each other.

A criterion reads one recorded array per exit, the channel named by `reads`: the exit's logits, or another that the
model records beside them. `step` is written once against the array namespace it is handed: NumPy in replay and live,
so that both run the same arithmetic; a Torch tensor does too.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.evaluation.arrays import namespace_of

if TYPE_CHECKING:
    from typing import Self

    from pipeline.evaluation.trace import Trace

Array = Any  # numpy.ndarray or torch.Tensor; the array API has no common static type yet
State = dict[str, Array]  # per-row arrays, first axis n; the engine drops the rows that left


@dataclass(frozen=True)
class Criterion(ABC):
    """Base of the exit criteria. Subclasses are frozen: their fields are settings, the threshold is not one."""

    name: ClassVar[str]
    title: ClassVar[str]
    """Its name in tables, with the short name of the paper that it comes from."""
    symbol: ClassVar[str] = "θ"
    """How its threshold is written."""
    source: ClassVar[str]
    reads: ClassVar[str] = "logits"
    """The channel that `step` is handed: "logits", or one that the model records into the trace beside them."""
    recorded_by: ClassVar[str | None] = None
    """Training method whose models record the channel, for criteria that read another than the logits."""
    regression: ClassVar[bool] = False
    """Whether the score has a meaning when the model answers with one real number."""
    causal: ClassVar[bool] = True
    """False for bounds that look at labels or at the dice (oracle, random): replay only."""

    @abstractmethod
    def start(self, n: int, like: Array) -> State:
        """State before the first exit for n rows, on the device and in the namespace of `like` (the first values)."""

    @abstractmethod
    def step(self, state: State, values: Array) -> tuple[State, Array]:
        """Take one more exit.

        Args:
            state: arrays with first axis n, from `start` or the last `step`.
            values: what this exit recorded in the channel `reads`; logits: (n, classes), or (n, 1) for regression;
                another channel: (n,) or (n, k). Float, no NaN.

        Returns:
            The new state, and the score (n,) after this exit.
        """

    @abstractmethod
    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        """The sweep that traces this criterion's whole curve, ascending, (k,) float64."""

    def answer(self, state: State, logits: Array) -> Array:
        """What a row that leaves at this exit is answered with: the exit's own logits, unless a criterion says more.

        Asked at early exits only: the last exit answers for itself, so that no rule changes the full model.

        Args:
            state: from the `step` of this exit.
            logits: of this exit, (n, outputs).

        Returns:
            Scores of the classes whose softmax is the answer's distribution, (n, classes); or the value, (n, 1).
        """
        return logits

    def fit(self, trace: "Trace") -> "Self":
        """This criterion with what it learns from labelled selection rows; most learn nothing and return themselves."""
        return self

    def applies_to(self, trace: "Trace") -> bool:
        """Whether the trace holds what this criterion reads and asks a question to which it has an answer."""
        recorded = self.reads == "logits" or self.reads in trace.channels or not self.causal
        return recorded and (self.regression or trace.kind == "classification")

    def values(self, trace: "Trace") -> np.ndarray:
        """The recorded array that `step` reads, (n, exits) or (n, exits, k); bounds derive theirs here.

        Raises:
            ArtifactError: the trace has no such channel.
        """
        if self.reads == "logits":
            return trace.logits
        if self.reads not in trace.channels:
            remedy = f"; method {self.recorded_by!r} records it: train with that" if self.recorded_by else ""
            raise ArtifactError(
                f"trace: no channel {self.reads!r}, which criterion {self.name!r} reads{remedy}"
                f" or add the tensor 'channel.{self.reads}' (docs/trace-format.md)"
            )
        return trace.channels[self.reads]


def answers_itself(criterion: Criterion) -> bool:
    """Whether the criterion answers with something else than the exit's own logits."""
    return type(criterion).answer is not Criterion.answer


def log_probabilities(logits: Array) -> Array:
    """Log-softmax over the last axis, (n, classes) to (n, classes), computed in float64.

    Float64 so that two paths to the same float32 logits cannot fall on two sides of a threshold.
    """
    xp = namespace_of(logits)
    wide = xp.astype(logits, xp.float64)
    shifted = wide - xp.max(wide, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def negative_entropy(logits: Array) -> Array:
    """sum_c p(c) ln p(c) in nats, (n, classes) to (n,): 0 when certain, -ln(classes) when every class is as likely."""
    xp = namespace_of(logits)
    log_p = log_probabilities(logits)
    return xp.sum(xp.exp(log_p) * xp.where(log_p > -xp.inf, log_p, xp.zeros_like(log_p)), axis=-1)


def run_length(count: Array, holds: Array) -> Array:
    """One more exit of a run: count + 1 where the condition holds, else 0; (n,), (n,) to (n,)."""
    return (count + 1) * holds


def probability_sweep(low: float) -> np.ndarray:
    """Thresholds from `low` to nearly 1, dense towards 1, where trained classifiers put most rows; 100 at most."""
    return np.unique(np.concatenate([np.linspace(low, 0.95, 50), 1 - np.logspace(-5, -1.302, 50)]))
