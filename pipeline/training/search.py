"""The search for a group's best point: its trials, their order, and which stop early (docs/design/search.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from pipeline.storage import content_key
from pipeline.training.halving import Cut, Halving
from pipeline.training.plan import Group, Plan, Results, Trial

AHEAD = 4
"""Suggested points that may be without a result. A suggestion is made from the results of all but the AHEAD - 1 points
before it, told in the order of the points; so it depends neither on the number of workers nor on the order of ends."""


class Suggester(Protocol):
    """A Bayesian searcher in the space of a grid."""

    def ask(self) -> tuple[int, float]:
        """The next point: batch size, learning rate."""
        ...

    def tell(self, number: int, selection: float | None) -> None:
        """The selection score of the point that was asked for as number 0, 1, ...; None: it has none."""
        ...


class Engines(Protocol):
    """The algorithms of the searches; `pipeline/running/ray/search.py` has Ray Tune's."""

    def suggester(self, group: Group, seed: int, random: int) -> Suggester:
        """A searcher in the space of a group's grid, of which the first points are random."""
        ...

    def cut(self, group: Group) -> Cut:
        """Asynchronous successive halving of a group's trials."""
        ...


class Points(Protocol):
    """The trials of one search."""

    def next(self, results: Results) -> Trial | None:
        """The next trial; None where there is none, or none before further results."""
        ...


class AllPoints:
    """Every point of a grid, at once."""

    def __init__(self, trials: Sequence[Trial] = ()) -> None:
        self._trials = iter(trials)

    def next(self, results: Results) -> Trial | None:
        return next(self._trials, None)


class SuggestedPoints:
    """So many points, each suggested from the results of those before.

    Args:
        make: batch size and learning rate to the trial.
    """

    def __init__(self, count: int, make: Callable[[int, float], Trial], suggester: Suggester) -> None:
        self._count, self._make, self._suggester = count, make, suggester
        self._trials: list[Trial] = []
        self._told = 0

    def next(self, results: Results) -> Trial | None:
        while len(self._trials) < self._count and self._tell(results):
            trial = self._make(*self._suggester.ask())
            new = all(trial.key != other.key for other in self._trials)
            self._trials.append(trial)
            if new:
                return trial
        return None

    def _tell(self, results: Results) -> bool:
        """Tell what the next suggestion is made from; False where that is not there yet."""
        while self._told <= len(self._trials) - AHEAD:
            key = self._trials[self._told].key
            if key not in results:
                return False
            result = results[key]
            self._suggester.tell(self._told, result.selection if result else None)
            self._told += 1
        return True


class Searches:
    """Begins the searches of a plan's groups.

    Args:
        engines: the algorithms; None where every group searches its whole grid.
        folder: parent folder of the journals of halving.
    """

    def __init__(self, plan: Plan, engines: Engines | None, folder: Path) -> None:
        self._plan, self._engines, self._folder = plan, engines, folder
        self._halvings: dict[str, Halving] = {}  # searches of equal settings are one

    def begin(self, group: Group, parent: str | None) -> tuple[Points, Halving | None]:
        """The trials of a group, and what stops them.

        Args:
            parent: key of the trial that all of them start from, where the group has a parent.
        """
        plan, first, engines = self._plan, self._plan.seeds[0], self._engines
        if group.search.method == "grid":
            return AllPoints(plan.grid(group, parent)), None
        assert engines is not None
        key = search_key(group, first, parent)
        if group.search.method == "bayes":
            make = partial(plan.trial, group, first, parent)
            return SuggestedPoints(group.points, make, engines.suggester(group, int(key[:8], 16), AHEAD)), None
        if key not in self._halvings:
            self._halvings[key] = Halving(engines.cut(group), group.epochs, self._folder / f"{key}.jsonl")
        return AllPoints(plan.grid(group, parent)), self._halvings[key]


def search_key(group: Group, first_seed: int, parent: str | None) -> str:
    """Hash of the inputs of a search's decisions. The number of suggested points is none: more go on from fewer.

    Args:
        first_seed, parent: seed of the search's trials, and key of the trial that they start from.
    """
    suggested = group.search.method == "bayes"
    rates = (min(group.learning_rates), max(group.learning_rates)) if suggested else group.learning_rates
    return content_key(
        {
            "method": group.search.method,
            "reduction": group.search.reduction,
            "batch_sizes": list(group.batch_sizes),
            "learning_rates": list(rates),
            "settings": group.settings,
            "seed": first_seed,
            "parent": parent,
        }
    )


@dataclass
class GroupSearch:
    """One group's grid, its choice, and the further seeds at the chosen point."""

    index: int
    group: Group
    children: list["GroupSearch"] = field(default_factory=list)
    points: Points = field(default_factory=AllPoints)
    halving: Halving | None = None
    grid: list[Trial] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    """Keys of grid trials without a result, for which the choice waits."""
    best: Trial | None = None
    further: dict[int, Trial] = field(default_factory=dict)

    def choice(self, results: Results) -> Trial | None:
        """The best trial of a grid that has ended; neither a failed nor a stopped one."""
        ended = [(trial, result) for trial in self.grid if (result := results.get(trial.key)) is not None]
        scored = [(trial, result.selection) for trial, result in ended if result.selection is not None]
        return max(scored, key=lambda pair: pair[1])[0] if scored else None

    def best_stopped(self) -> str | None:
        """The stopped trial with the best score (the first among equals), which may go on; None where none stopped."""
        stopped = self.halving.stopped if self.halving is not None else {}
        keys = [trial.key for trial in self.grid if trial.key in stopped]
        return max(keys, key=lambda key: stopped[key].selection, default=None)
