"""The state of a plan's trials, updated whenever a trial ends.

tests/test_plan.py computes these definitions again after every event and compares:

- A group's grid is made at once; for a group with a parent, when the parent has a choice.
- The choice of a group is the trial with the best selection score (the first among equals) once its whole grid has
  ended. Failed trials and trials with an undefined score are never chosen, so a group may have no choice.
- The further seeds are made at the chosen point. In a group with a parent, each is made when the parent's trial of the
  same seed has finished.
- The next trial is the first of those that may run: grids in the order of groups, then further seeds in that order.
- A result on disk counts as if the trial had just ended, but a selected trial also needs its weights, those that its
  result names. One whose weights were dropped, cut or changed runs again, and the choice of its group waits for it.

Each trial is made, hashed and looked up on disk once. An ended trial affects only its group and those that start from
it, so the cost is linear in the number of trials (benchmarks/bench_plan.py).
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import TrialsFailedError
from pipeline.results import TrialResult
from pipeline.storage import KnownHashes
from pipeline.training.plan import WEIGHTS, Group, Plan, Results, Trial, read_result, remove_state

GRID, FURTHER_SEEDS = range(2)


@dataclass
class _Search:
    """One group's grid, its choice, and the further seeds at the chosen point."""

    index: int
    group: Group
    children: list["_Search"] = field(default_factory=list)
    grid: list[Trial] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    """Keys of grid trials without a result, for which the choice waits."""
    best: Trial | None = None
    further: dict[int, Trial] = field(default_factory=dict)

    def choice(self, results: Results) -> Trial | None:
        """The best trial of a grid that has ended."""
        ended = [(trial, result) for trial in self.grid if (result := results[trial.key]) is not None]
        scored = [(trial, result.selection) for trial, result in ended if result.selection is not None]
        return max(scored, key=lambda pair: pair[1])[0] if scored else None


class _Place(NamedTuple):
    """The place of a trial in the plan; the first in order runs first."""

    phase: int
    group: int
    position: int
    """Position in the grid, or among the further seeds."""


class Progress:
    """The state of a plan, with the results on disk: `next` hands out a trial, `end` takes its result.

    Args:
        root: parent folder of the trial folders.
    """

    def __init__(self, plan: Plan, root: Path) -> None:
        self.plan, self.root = plan, root
        self._hashes = KnownHashes(root.with_name("hashes.json"))
        self.results: dict[str, TrialResult | None] = {}
        """Key to result of every trial that has ended; None for a failed one."""
        self.reasons: dict[str, str] = {}
        """Key to the reason of every failure, one line."""
        self.running: dict[str, Trial] = {}
        """Key to trial of every trial that was handed out and has not ended."""
        self._trials: dict[str, Trial] = {}
        self._places: dict[str, list[_Place]] = {}  # equal settings are one trial with several places
        self._queue: list[tuple[_Place, str]] = []
        self._unchecked: set[str] = set()  # keys of results from disk whose weights are not yet checked
        self._searches = [_Search(index, group) for index, group in enumerate(plan.groups)]
        self._by_name = {search.group.name: search for search in self._searches}
        for search in self._searches:
            if search.group.parent is not None:
                self._by_name[search.group.parent].children.append(search)
        for search in self._searches:
            if search.group.parent is None:
                self._make_grid(search, None)
        self._hashes.save()

    # Running

    def next(self) -> Trial | None:
        """Hand out the first trial that may run now; None while there is none."""
        while self._queue:
            _, key = heapq.heappop(self._queue)
            if self._waits(key):
                self.running[key] = self._trials[key]
                return self._trials[key]
        return None

    def end(self, key: str, result: TrialResult | None, reason: str = "") -> Trial:
        """Take the result of a trial that was handed out; None for a failure. Its weights are assumed to exist.

        Args:
            reason: why it failed, one line.
        """
        trial = self.running.pop(key)
        self.results[key] = result
        if result is None:
            self.reasons[key] = reason
        for place in self._places[key]:
            search = self._searches[place.group]
            if place.phase == FURTHER_SEEDS:
                self._make_child_seeds(search, place.position)
            elif key in search.open:
                search.open.remove(key)
                self._choose(search)
        return trial

    def unfinished(self) -> int:
        """Number of trials that run or may run now; linear in the number of waiting ones."""
        return len(self.running) + len({key for _, key in self._queue if self._waits(key)})

    def prune(self) -> None:
        """Drop the weights of trials that are not selected: a grid keeps one checkpoint per seed."""
        keep = {trial.key for group in self.plan.groups for trial in self.selected(group).values()}
        for key in self._trials:
            if key not in keep:
                (self.root / key / WEIGHTS).unlink(missing_ok=True)
                remove_state(self.root / key)

    # Trials and choices

    def trials(self) -> list[Trial]:
        """All trials made so far, ended or not: grids in the order of groups, then further seeds."""
        grids = [trial for search in self._searches for trial in search.grid]
        return grids + [trial for search in self._searches for trial in self._further(search)]

    def trials_of(self, group: Group) -> list[Trial]:
        """All trials of one group made so far."""
        search = self._by_name[group.name]
        return [*search.grid, *self._further(search)]

    def best(self, group: Group) -> Trial | None:
        """The grid's chosen trial; None until the whole grid has ended, and where no trial can be chosen."""
        return self._by_name[group.name].best

    def selected(self, group: Group) -> dict[int, Trial]:
        """Seed to the trial at the chosen grid point, ended or not, for seeds whose trial has been made."""
        search = self._by_name[group.name]
        if search.best is None:
            return {}
        return {self.plan.seeds[0]: search.best} | {t.settings["seed"]: t for t in self._further(search)}

    def failures(self) -> list[Trial]:
        """Failed trials."""
        return [trial for trial in self.trials() if self._failed(trial)]

    def check(self) -> None:
        """Raise TrialsFailedError where a group has no choice."""
        for search in self._searches:
            if search.best is None and search.grid:  # a group without a grid lacks its parent's choice
                failed = [trial.key for trial in search.grid if self._failed(trial)]
                why = f" ({self.reasons[failed[0]]})" if failed else ""
                where = f"; see error.txt in the trial folders {', '.join(failed[:3])}" if failed else ""
                raise TrialsFailedError(
                    f"{search.group.name}: no trial of its grid finished{why}{where}; mend the settings and run "
                    "`dvc repro` again"
                )

    def _further(self, search: _Search) -> Iterator[Trial]:
        return (search.further[seed] for seed in self.plan.seeds[1:] if seed in search.further)

    def _failed(self, trial: Trial) -> bool:
        return trial.key in self.results and self.results[trial.key] is None

    def _waits(self, key: str) -> bool:
        return key not in self.results and key not in self.running

    # Consequences of a result

    def _make_grid(self, search: _Search, parent: str | None) -> None:
        search.grid = self.plan.grid(search.group, parent)
        for position, trial in enumerate(search.grid):
            self._add(trial, _Place(GRID, search.index, position))
        search.open = {trial.key for trial in search.grid if trial.key not in self.results}
        self._choose(search)

    def _choose(self, search: _Search) -> None:
        if search.open:
            return
        best = search.choice(self.results)
        if best is None or not self._has_weights(best.key):
            return
        search.best = best
        for child in search.children:
            self._make_grid(child, best.key)
        for position in range(len(self.plan.seeds) - 1):
            self._make_seed(search, position)

    def _make_seed(self, search: _Search, position: int) -> None:
        """Make the trial of a further seed, once the group has a choice and the parent's trial has finished."""
        if search.best is None:
            return
        seed, parent = self.plan.seeds[1 + position], None
        if search.group.parent is not None:
            start = self._by_name[search.group.parent].further.get(seed)
            if start is None or self.results.get(start.key) is None:
                return
            parent = start.key
        trial = search.further[seed] = self.plan.reseeded(search.group, search.best, seed, parent)
        self._add(trial, _Place(FURTHER_SEEDS, search.index, position))
        if trial.key in self.results and self._has_weights(trial.key):
            self._make_child_seeds(search, position)

    def _make_child_seeds(self, search: _Search, position: int) -> None:
        for child in search.children:
            self._make_seed(child, position)

    def _add(self, trial: Trial, place: _Place) -> None:
        """Add a trial, with its result where one is on disk; else it waits."""
        key = trial.key
        if key not in self._trials:
            self._trials[key] = trial
            self._places[key] = []
            result = read_result(self.root / key)
            if result is not None:
                self.results[key] = result
                self._unchecked.add(key)
        self._places[key].append(place)
        if self._waits(key):
            heapq.heappush(self._queue, (place, key))

    def _has_weights(self, key: str) -> bool:
        """Whether a result has its weights; one on disk without them, or with others, is dropped and run again."""
        if key not in self._unchecked:
            return True
        self._unchecked.remove(key)
        result = self.results[key]
        if result is not None and self._hashes.of(self.root / key / WEIGHTS) == result.weights_sha256:
            return True
        del self.results[key]
        for place in self._places[key]:
            heapq.heappush(self._queue, (place, key))
            if place.phase == GRID:
                self._searches[place.group].open.add(key)
        return False
