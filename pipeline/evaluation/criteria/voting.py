"""Voting (Sun et al. 2021): leave when enough of the exits so far name one class, and answer with that class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.errors import ParamsError
from pipeline.evaluation.arrays import largest_class
from pipeline.evaluation.criteria.base import Array, Criterion, State

_UNNAMED = 1e-9  # added to all votes, so that the logarithm of no vote is finite


@dataclass(frozen=True)
class Voting(Criterion):
    """Votes for the leading class over a power of the number of votes, max_c sum_{i<=j} [y_i = c] / j^power.

    A row leaves when the score >= v. Power 0 counts the votes of the leading class. Power 1 would give its share of the
    votes, which is 1 at exit 1, so that every row would leave there. The paper's lambda lies between and is tuned per
    task.

    The answer is the class with most votes, as in the paper. A tie goes to the class that the current exit names if it
    is among the leaders, else to the lower index. The paper also trains its exits to differ, which belongs to the
    model, not to the criterion. No released code is known.

    Attributes:
        power: 0 <= power < 1.
    """

    name: ClassVar[str] = "voting"
    title: ClassVar[str] = "voting (Sun 2021)"
    symbol: ClassVar[str] = "v"
    source: ClassVar[str] = "Sun et al. 2021, Early Exiting with Ensemble Internal Classifiers"
    probabilities: ClassVar[bool] = False
    power: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.power < 1:
            raise ParamsError(f"voting.power: {self.power} is not in [0, 1); 0 counts votes, towards 1 their share")

    def start(self, n: int, like: Array) -> State:
        xp = array_namespace(like)
        zeros = xp.zeros_like(like, dtype=xp.float64)
        return {"votes": zeros, "current": zeros}

    def step(self, state: State, values: Array) -> tuple[State, Array]:
        xp = array_namespace(values)
        classes = xp.arange(values.shape[-1], device=device(values))
        current = xp.astype(classes[:, None] == largest_class(values)[None, :], xp.float64).T
        votes = state["votes"] + current
        score = xp.max(votes, axis=-1) / xp.sum(votes, axis=-1) ** self.power
        return {"votes": votes, "current": current}, score

    def wait(self, state: State | None, threshold: float, exits_left: int) -> int:
        votes = np.zeros((1, 1)) if state is None else state["votes"]
        most, given = float(votes.max()), float(votes[0].sum())
        needed = threshold - 1e-9 * abs(threshold)  # a power may be rounded otherwise than in `step`
        waits = (more for more in range(1, exits_left) if (most + more) / (given + more) ** self.power >= needed)
        return next(waits, exits_left)

    def answer(self, state: State, logits: Array) -> Array:
        xp = array_namespace(logits)
        # Votes are whole numbers, so half a vote only settles ties.
        return xp.log(state["votes"] + 0.5 * state["current"] + _UNNAMED)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        counts = np.arange(1, exits + 1)
        return np.unique((counts[:, None] / counts[None, :] ** self.power)[counts[:, None] <= counts[None, :]])

    def reach(self, exits: int, classes: int) -> tuple[float, float]:
        return exits**-self.power, exits ** (1 - self.power)


CRITERION = Voting
