"""The contract of an exit criterion: a causal score per row after each exit, compared with a threshold.

After exit j a criterion has seen exits 1..j and gives each row a score. The row leaves at the first exit whose
score reaches the threshold (score >= threshold), else at the last exit. Every criterion keeps four laws
(tests/test_criteria.py): it never looks past its exit; a higher threshold never exits earlier; a threshold of
infinity is the full model; rows do not influence each other.

A criterion reads one recorded array per exit, the channel named by `reads`: the exit's logits, or an array that the
model records beside them. `step` uses the array namespace of its arguments. Replay and live inference both call it with
NumPy arrays, so that they run the same arithmetic; Torch tensors work too.
"""

import dataclasses
import math
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
State = dict[str, Array]  # per-row arrays, first axis n; the engine drops rows that have left


@dataclass(frozen=True)
class Criterion(ABC):
    """Base of the exit criteria. Fields of a subclass are its settings; the threshold is not one of them."""

    name: ClassVar[str]
    title: ClassVar[str]
    """Its name in tables, with the short name of its paper."""
    symbol: ClassVar[str] = "θ"
    """Symbol of its threshold: θ for a bound on a score of its own, t for a count of exits in a row."""
    source: ClassVar[str]
    reads: ClassVar[str] = "logits"
    """The channel that `step` reads: "logits", or one that the model records beside them."""
    width: ClassVar[int | None] = 1
    """Values of a channel other than logits per row and exit: 1 for (n, exits), k for (n, exits, k), None for any k."""
    recorded_by: ClassVar[str | None] = None
    """The method whose models record the channel; None for logits and for bounds."""
    regression: ClassVar[bool] = False
    """Whether the score has a meaning for a regression."""
    probabilities: ClassVar[bool] = True
    """Whether it needs the classes' probabilities; False where each exit's class, or another channel, is enough."""
    causal: ClassVar[bool] = True
    """False for the bounds oracle and random, which only replay can compute."""
    adaptive: ClassVar[bool] = True
    """False where all rows leave at one exit: a smaller model, rather than an early exit."""

    def start(self, n: int, like: Array) -> State:
        """State before the first exit for n rows, on the device and in the namespace of `like` (the first values).

        Empty, unless the criterion keeps something per row and overrides it.
        """
        return {}

    @abstractmethod
    def step(self, state: State, values: Array) -> tuple[State, Array]:
        """Take one more exit.

        Args:
            state: arrays with first axis n, from `start` or the last `step`.
            values: the channel `reads` at this exit. Logits: (n, classes), or (n, 1) for regression; another
                channel: (n,) or (n, k). Float, no NaN.

        Returns:
            The new state, and the score (n,) after this exit.
        """

    @abstractmethod
    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        """Thresholds that cover the criterion's whole curve, ascending, (k,) float64."""

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        """The lowest and the highest score that the criterion can give, for a warning about other thresholds.

        Without bounds, unless the criterion overrides it.
        """
        return -np.inf, np.inf

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        """How many more exits must answer before a row can leave; 1, unless the criterion overrides it.

        Where one row runs alone, the live engines ask those exits together when the last of them has its layer. A wait
        that is too short costs time; one that is too long is an error.

        Args:
            state: from the last `step`; None before the first exit.
            threshold: a row leaves at the first exit whose score reaches it.
            exits_left: exits that have not answered, 1 or more.

        Returns:
            A number from 1 to `exits_left`, for the row that is the first to leave.
        """
        return 1

    def answer(self, state: State, logits: Array) -> Array:
        """The answer to a row that leaves at this exit: the exit's logits, unless the criterion overrides it.

        The engines call it at early exits only. The last exit answers with its logits, so that no criterion changes the
        full model.

        Args:
            state: from the `step` of this exit.
            logits: of this exit, (n, outputs).

        Returns:
            Scores of the classes whose softmax is the answer's distribution, (n, classes); or the value, (n, 1).
        """
        return logits

    def fit(self, trace: "Trace") -> "Self":
        """The criterion fitted on labelled selection rows; most learn nothing and return themselves."""
        return self

    def applies_to(self, trace: "Trace") -> bool:
        """Whether the trace has the channel that this criterion reads, and a kind that it serves."""
        recorded = self.reads == "logits" or self.reads in trace.channels or not self.causal
        return recorded and (self.regression or trace.kind == "classification") and not self.lacks_probabilities(trace)

    def lacks_probabilities(self, trace: "Trace") -> bool:
        """Whether the trace holds hard labels, and the criterion needs more."""
        return trace.hard and self.probabilities

    def values(self, trace: "Trace") -> np.ndarray:
        """The recorded array that `step` reads, (n, exits) or (n, exits, k); bounds compute theirs here.

        Raises:
            ArtifactError: the trace has no such channel, or one of another width.
        """
        if self.reads == "logits":
            return trace.logits
        if self.reads not in trace.channels:
            remedy = f"train with method {self.recorded_by!r}, which records it, or " if self.recorded_by else ""
            raise ArtifactError(
                f"trace: no channel {self.reads!r}, which criterion {self.name!r} reads; {remedy}"
                f"add the tensor 'channel.{self.reads}' (docs/trace-format.md)"
            )
        values = trace.channels[self.reads]
        width = 1 if values.ndim == 2 else values.shape[2]
        if values.ndim != (2 if self.width == 1 else 3) or self.width not in (None, width):
            given = f"(rows, exits, {width})" if values.ndim == 3 else "(rows, exits)"
            read = "(rows, exits)" if self.width == 1 else f"(rows, exits, {self.width or 'k'})"
            raise ArtifactError(
                f"trace: channel {self.reads!r} has shape {given}, and criterion {self.name!r} reads {read}; "
                "write it in that shape"
            )
        return values

    def used_settings(self, *, regression: bool) -> dict[str, float]:
        """The settings that decide on a task of this kind, with their values; overridden where some do not."""
        fields = (f.name for f in dataclasses.fields(self) if not f.metadata.get("fitted"))
        return {name: getattr(self, name) for name in fields}

    def serves(self, exits: int, classes: int) -> bool:
        """Whether what `fit` set is for a model of so many exits and classes; overridden where it depends on them."""
        return True


class RecordedScore(Criterion):
    """Base of the criteria whose score is the channel itself, (n,)."""

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = namespace_of(values)
        return state, xp.astype(values, xp.float64)


def refuse_other_fit(criterion: Criterion, exits: int, classes: int) -> None:
    """Raise ArtifactError where a criterion was fitted to a model of other exits or classes."""
    if not criterion.serves(exits, classes):
        raise ArtifactError(
            f"criterion {criterion.name!r}: what it learned is not for {exits} exits and {classes} classes; fit it to "
            "this model, or run `dvc repro -f evaluate` for the task"
        )


def answers_itself(criterion: Criterion) -> bool:
    """Whether the criterion overrides `answer`."""
    return type(criterion).answer is not Criterion.answer


def log_probabilities(logits: Array) -> Array:
    """Log-softmax over the last axis, (n, classes) to (n, classes), computed in float64.

    Float64 keeps equal float32 logits on one side of a threshold, whichever way they are computed.
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


def missing(state: State | None, count: str, threshold: float, exits_left: int, before: float = 0.0) -> int:
    """`Criterion.wait` of a score that grows by 1 an exit at most.

    Args:
        count: the part of the state that is the score, (n,).
        before: what it grows from at the first exit.
    """
    if state is not None and not len(state[count]):
        return 1
    reached = before if state is None else float(state[count].max())
    return math.ceil(max(1, min(threshold - reached, exits_left)))


def run_length(count: Array, holds: Array) -> Array:
    """One more exit of a run: count + 1 where the condition holds, else 0; (n,), (n,) to (n,)."""
    return (count + 1) * holds


def probability_sweep(low: float) -> np.ndarray:
    """Thresholds from `low` to nearly 1, dense towards 1, where trained classifiers put most rows; 100 at most."""
    return np.unique(np.concatenate([np.linspace(low, 0.95, 50), 1 - np.logspace(-5, -1.302, 50)]))
