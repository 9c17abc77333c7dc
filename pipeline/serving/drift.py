"""A test of where served rows leave against where the selection rows left: bets that win while they leave elsewhere.

If served rows are like the selection rows, then the rank of each new row's depth among all rows so far is uniform, and
independent of the ranks before (Vovk, Gammerman and Shafer, 2005, conformal prediction, with ties broken at random).
Nobody can win against that by betting: the stake of a gambler who bets on each rank before it is known exceeds 1 / a
with a probability of at most a, however often one looks (Ville's inequality). It holds for any number of selection
rows, since they are part of the ranking and no estimate. See docs/design/watch.md.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

MOVES = 0.005
"""Share of the money that is dealt out evenly before each row, so that a bet that wins late is not yet ruined."""
TAILS = np.array([0.02, 0.05, 0.1, 0.2, 0.5, 0.8])
RISKED = np.array([0.25, 0.9])


def bets(rank: float) -> np.ndarray:
    """What each bet returns for a rank in [0, 1], where 0 is the deepest: on average 1 over uniform ranks.

    Each risks a share of its money on one event: the rank is within a share of the deepest ranks, or of the shallowest,
    or within the middle half, or outside of it. The first risks nothing.

    Returns:
        (29,) float64.
    """
    middle = 2.0 * (abs(rank - 0.5) < 0.25)
    wins = np.concatenate([(rank < TAILS) / TAILS, (rank > 1 - TAILS) / TAILS, [middle, 2.0 - middle]])
    return np.concatenate([[1.0], *((1 - RISKED[:, None]) + RISKED[:, None] * wins)])


BETS = len(bets(0.5))


class Drift:
    """Bets on one operating point's rows, begun anew with each window of them.

    The probability of a false alarm in a window is at most `alarm`. Beginning anew lets rows that have drifted for long
    not become the new normal.

    Args:
        promised: selection rows that left at each exit.
        alarm: as said; the stake at which it is raised is 1 / alarm.
        window: rows.
        seed: of the ranks of ties.

    Attributes:
        raised: whether there was an alarm in the last whole window, or is one in this.
        alarms: how many there were.
        stake: what the gambler has, from 1 at each begin: how much the rows speak against the promise.
        recent: exits of the last rows, 50 at most.

    >>> drift = Drift([80, 15, 5])
    >>> [drift.see(2) for _ in range(20)].index(True)
    3
    """

    def __init__(self, promised: Sequence[int], alarm: float = 1e-3, window: int = 1000, seed: int = 0) -> None:
        self.promised = np.asarray(promised, dtype=np.int64)
        self.limit, self.window = 1 / alarm, window
        self.raised, self.alarms = False, 0
        self.recent: deque[int] = deque(maxlen=50)
        self._random = np.random.default_rng(seed)
        self._begin()

    def _begin(self) -> None:
        self._counts = np.zeros_like(self.promised)
        self._money = np.full(BETS, 1 / BETS)
        self.rows, self.stake = 0, 1.0

    def see(self, exit_index: int) -> bool:
        """Take a row that left at an exit, counted from 0; whether it raises the alarm."""
        if self.rows == self.window:
            self.raised = False  # a whole window passed without
            self._begin()
        self.recent.append(exit_index)
        self._counts[exit_index] += 1
        self.rows += 1
        every = self.promised + self._counts
        ties = self._random.random() * every[exit_index]
        rank = (every[exit_index + 1 :].sum() + ties) / every.sum()
        money = self._money * (1 - MOVES) + self.stake * MOVES / BETS
        self._money = money * bets(float(rank))
        self.stake = float(self._money.sum())
        if self.stake < self.limit:
            return False
        self.raised, self.alarms = True, self.alarms + 1
        self._begin()
        return True
