"""Voting (Sun et al. 2021): leave when enough of the exits so far name one class, and answer with that class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from pipeline.errors import ParamsError
from pipeline.evaluation.arrays import largest_class
from pipeline.evaluation.criteria.base import Array, Criterion, State

_UNNAMED = 1e-9  # a class without a vote gets this much of one, so that its logarithm is finite


@dataclass(frozen=True)
class Voting(Criterion):
    """Votes for the leading class over a power of the number of votes, max_c sum_{i<=j} [y_i = c] / j^power.

    Leaves when the score >= v. Power 1 is the leading class's share of the votes: always 1 at exit 1, so that no
    threshold would use a second exit; power 0 is its count. The paper's lambda lies between them and is tuned per task.

    The answer is the class with most votes, as in the paper; a tie goes to the class that the current exit names if it
    is one of them, else to the lower index. The paper also trains its exits to differ: a matter of the model, not the
    rule. No released code was found to compare with.

    Attributes:
        power: 0 <= power < 1.
    """

    name: ClassVar[str] = "voting"
    title: ClassVar[str] = "voting (Sun 2021)"
    source: ClassVar[str] = "Sun et al. 2021, Early Exiting with Ensemble Internal Classifiers"
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

    def answer(self, state: State, logits: Array) -> Array:
        xp = array_namespace(logits)
        # Half a vote settles ties and no more: votes are whole numbers.
        return xp.log(state["votes"] + 0.5 * state["current"] + _UNNAMED)

    def thresholds(self, exits: int, classes: int) -> np.ndarray:
        given = np.arange(1, exits + 1)
        return np.unique((given[:, None] / given[None, :] ** self.power)[given[:, None] <= given[None, :]])


CRITERION = Voting
