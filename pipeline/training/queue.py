"""The trials that wait for their turn, in the order of the plan; one that another driver runs is left to it."""

import heapq
from collections.abc import Callable
from typing import NamedTuple

from pipeline.training.claims import Claims

GRID, FURTHER_SEEDS = range(2)


class Place(NamedTuple):
    """The place of a trial in the plan; the first in order runs first."""

    phase: int
    group: int
    position: int
    """Position in the grid, or among the further seeds."""


class TrialQueue:
    """Keys of trials at their places; equal settings are one trial with several places, of which the first counts.

    Args:
        waits: whether a trial still waits; entries of others are passed over.
        claims: keep a trial to one driver, where several share the folder; None: there is one.
    """

    def __init__(self, waits: Callable[[str], bool], claims: Claims | None) -> None:
        self._waits, self._claims = waits, claims
        self.places: dict[str, list[Place]] = {}
        self.elsewhere = 0
        """How many trials other drivers ran when the next one was last asked for."""
        self._heap: list[tuple[Place, str]] = []

    def add(self, key: str, place: Place) -> None:
        """Give a trial a place, at which it waits if it does."""
        self.places.setdefault(key, []).append(place)
        if self._waits(key):
            heapq.heappush(self._heap, (place, key))

    def reopen(self, key: str) -> None:
        """Let a trial wait at all of its places again."""
        for place in self.places[key]:
            heapq.heappush(self._heap, (place, key))

    def drop(self, key: str) -> None:
        """Leave a trial that was claimed to others."""
        if self._claims is not None:
            self._claims.drop(key)

    def pop(self, ended_elsewhere: Callable[[str], bool]) -> str | None:
        """Claim the first trial that waits; None while there is none.

        Args:
            ended_elsewhere: takes the result of a claimed trial that another driver ended meanwhile, and says whether
                there was one.
        """
        others: list[tuple[Place, str]] = []
        found = None
        while self._heap and found is None:
            place, key = heapq.heappop(self._heap)
            if not self._waits(key):
                continue
            if self._claims is None:
                found = key
            elif not self._claims.take(key):
                others.append((place, key))
            elif ended_elsewhere(key):
                self._claims.drop(key)
            else:
                found = key
        for entry in others:
            heapq.heappush(self._heap, entry)
        self.elsewhere = len({key for _, key in others})
        return found

    def __len__(self) -> int:
        """Number of trials that wait; linear in it."""
        return len({key for _, key in self._heap if self._waits(key)})
