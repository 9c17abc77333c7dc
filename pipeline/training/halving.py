"""Asynchronous successive halving of one grid: which trials stop early, kept so that a later run says the same."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from pipeline.storage import write_text


class Cut(Protocol):
    """The rungs of one grid."""

    def stops(self, key: str, epoch: int, selection: float) -> bool:
        """Whether a trial stops after this epoch, by those that came as far before it.

        Args:
            selection: its best selection score so far.
        """
        ...


class Stop(NamedTuple):
    """The last epoch of a stopped trial, and its best selection score until then."""

    epoch: int
    selection: float


class Halving:
    """The decisions about one grid.

    They depend on the order in which epochs end, which a journal keeps: a search that was interrupted goes on where it
    was, and one that has ended answers the same. A trial that another search trained to its end comes in with its
    epochs, so that it stops here where it would have stopped.

    Args:
        epochs: those of a whole trial, after the last of which none stops.
        journal: file of a line per epoch, written as trials run and never by reading alone.

    Attributes:
        stopped: trials that stopped, by key.
    """

    def __init__(self, cut: Cut, epochs: int, journal: Path) -> None:
        self.stopped: dict[str, Stop] = {}
        self._best: dict[str, float] = {}
        self._cut, self._epochs, self._journal = cut, epochs, journal
        self._decided: set[tuple[str, int]] = set()
        self._goes_on: set[str] = set()
        self._lines: list[str] = []
        self._replay()

    def stops(self, key: str, epoch: int, selection: float) -> bool:
        """Whether a running trial stops after this epoch; what was told before has the answer that it had.

        Args:
            selection: NaN where it is not defined; a trial without any defined score goes on.
        """
        before = len(self._lines)
        stops = self._stops(key, epoch, selection)
        if len(self._lines) > before:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._journal, "".join(self._lines))
        return stops

    def take(self, key: str, history: Iterable[Mapping[str, float]]) -> None:
        """The epochs of a trial that was trained to its end."""
        for row in history:
            if self._stops(key, int(row["epoch"]), row.get("selection", math.nan)):
                return

    def go_on(self, key: str) -> None:
        """Let a stopped trial go on to its end."""
        del self.stopped[key]
        self._goes_on.add(key)

    def _stops(self, key: str, epoch: int, selection: float) -> bool:
        if key in self._goes_on:
            return False
        if (key, epoch) not in self._decided:
            self._keep(key, epoch, selection, self._decide(key, epoch, selection))
        return key in self.stopped and self.stopped[key].epoch == epoch

    def _keep(self, key: str, epoch: int, selection: float, stops: bool) -> None:
        entry = {"trial": key, "epoch": epoch, "selection": selection, "stops": stops}
        self._lines.append(json.dumps(entry) + "\n")
        if stops:
            self.stopped[key] = Stop(epoch, self._best.get(key, selection))

    def _decide(self, key: str, epoch: int, selection: float) -> bool:
        self._decided.add((key, epoch))
        if not math.isnan(selection):
            self._best[key] = max(selection, self._best.get(key, selection))
        return epoch < self._epochs and key in self._best and self._cut.stops(key, epoch, self._best[key])

    def _replay(self) -> None:
        """Decide again what the journal has, in its order; what it says counts."""
        try:
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                key, epoch, selection = str(entry["trial"]), int(entry["epoch"]), float(entry["selection"])
                self._decide(key, epoch, selection)
                self._keep(key, epoch, selection, bool(entry["stops"]))
        except (OSError, ValueError, TypeError, KeyError):
            return  # there is none, or it is damaged: what follows is decided again
