"""The state of a plan's trials, updated whenever a trial ends.

tests/test_plan.py computes these definitions again after every event and compares:

- A group's grid is searched from the start; for a group with a parent, from when the parent has a choice.
- A group's search makes the trials of its grid, at once or one after another; those of one that waits for results are
  made as soon as these are there. It may stop a trial after an epoch; docs/design/search.md.
- The choice of a group is the trial with the best selection score (the first among equals) once its whole grid has
  ended. Failed trials, stopped trials and trials with an undefined score are never chosen, so a group may have no
  choice. Where nothing else is left to choose, the best of the stopped trials goes on to its end.
- The further seeds are made at the chosen point. In a group with a parent, each is made when the parent's trial of the
  same seed has finished.
- The next trial is the first of those that may run: grids in the order of groups, then further seeds in that order.
- A result on disk counts as if the trial had just ended, but a selected trial also needs its weights, those that its
  result names. One whose weights were dropped, cut or changed runs again, and the choice of its group waits for it.

Each trial is made, hashed and looked up on disk once. An ended trial affects only its group and those that start from
it, so the cost is linear in the number of trials (benchmarks/bench_plan.py).
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.results import TrialResult
from pipeline.storage import KnownHashes
from pipeline.training.claims import Claims
from pipeline.training.halving import Halving, Stop
from pipeline.training.plan import WEIGHTS, Group, Plan, Trial, is_described, read_history, read_result, remove_state
from pipeline.training.queue import FURTHER_SEEDS, GRID, Place, TrialQueue
from pipeline.training.search import Engines, GroupSearch, Searches


class Progress:
    """The state of a plan, with the results on disk: `next` hands out a trial, `end` takes its result.

    Args:
        root: parent folder of the trial folders.
        engines: the algorithms of searches other than `grid`.
        hashes: what hashes weights; it may fetch them first.
        claims: keep a trial to one driver, where several share the folder; None: there is one.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path,
        engines: Engines | None = None,
        hashes: KnownHashes | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.plan, self.root, self.claims = plan, root, claims
        self._begin = Searches(plan, engines, root.with_name("searches")).begin
        self._hashes = hashes or KnownHashes(root.with_name("hashes.json"))
        self.results: dict[str, TrialResult | None] = {}
        """Key to result of every trial that has ended; None for a failed one."""
        self.reasons: dict[str, str] = {}
        """Key to the reason of every failure, one line."""
        self.stopped: dict[str, Stop] = {}
        """Key to last epoch and score of every trial that its search stopped."""
        self.running: dict[str, Trial] = {}
        """Key to trial of every trial that was handed out and has not ended."""
        self._trials: dict[str, Trial] = {}
        self._queue = TrialQueue(self._waits, claims)
        self._unchecked: set[str] = set()  # keys of results from disk whose weights are not yet checked
        self._refused: set[str] = set()
        """Keys of results whose weights were not there."""
        self._searches = [GroupSearch(index, group) for index, group in enumerate(plan.groups)]
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
        """Hand out the first trial that may run now; None while there is none.

        One that another driver runs is left to it; its result is taken once it is there.
        """
        key = self._queue.pop(self._ended_elsewhere)
        if key is None:
            return None
        trial = self.running[key] = self._trials[key]
        return trial

    @property
    def elsewhere(self) -> int:
        """How many trials other drivers ran when the next one was last asked for."""
        return self._queue.elsewhere

    def _ended_elsewhere(self, key: str) -> bool:
        """Take the result of a trial that another driver ended meanwhile; False where there is none."""
        result = read_result(self.root / key)
        if result is None or (key in self._refused and not self._are_weights_of(key, result)):
            return False
        self.results[key] = result
        self._unchecked.add(key)
        if (halving := self._halving_of(key)) is not None:
            self._halve(halving, key)
        self._follow(key)
        return True

    def end(self, key: str, result: TrialResult | None, reason: str = "") -> Trial:
        """Take the result of a trial that was handed out; None for a failure. Its weights are assumed to exist.

        Args:
            reason: why it failed, one line.
        """
        trial = self.running.pop(key)
        self.results[key] = result
        if result is None:
            self.reasons[key] = reason
        self._follow(key)
        return trial

    def stops(self, key: str, epoch: int, selection: float) -> bool:
        """Whether the search of a running trial stops it after this epoch.

        Args:
            selection: its selection score; NaN where it is not defined.
        """
        halving = self._halving_of(key)
        return halving is not None and halving.stops(key, epoch, selection)

    def stop(self, key: str) -> Trial:
        """Take a trial that its search stopped; its state stays for a search that lets it go on."""
        halving = self._halving_of(key)
        assert halving is not None
        self.stopped[key] = halving.stopped[key]
        trial = self.running.pop(key)
        self._follow(key)
        return trial

    def _halving_of(self, key: str) -> Halving | None:
        return next((self._searches[at.group].halving for at in self._queue.places[key] if at.phase == GRID), None)

    def _follow(self, key: str) -> None:
        """Make what a trial that has ended was waited for."""
        for place in self._queue.places[key]:
            search = self._searches[place.group]
            if self._waits(key):  # its weights turned out to be gone
                return
            if place.phase == FURTHER_SEEDS:
                if self._has_weights(key):
                    self._make_child_seeds(search, place.position)
            elif key in search.open:
                search.open.remove(key)
                self._extend(search)

    def again(self, key: str) -> None:
        """Take back a trial that was handed out: it waits at its place."""
        del self.running[key]
        self._queue.drop(key)
        self._queue.reopen(key)

    def unfinished(self) -> int:
        """Number of trials that run or may run now; linear in the number of waiting ones."""
        return len(self.running) + len(self._queue)

    def prune(self) -> list[str]:
        """Drop the weights of trials that are not selected, and return their keys; those that a search stopped may go
        on, and keep theirs."""
        keep = {trial.key for group in self.plan.groups for trial in self.selected(group).values()} | {*self.stopped}
        dropped = [key for key in self._trials if key not in keep]
        for key in dropped:
            (self.root / key / WEIGHTS).unlink(missing_ok=True)
            remove_state(self.root / key)
        return dropped

    # Trials and choices

    def trials(self) -> list[Trial]:
        """All trials made so far, ended or not: grids in the order of groups, then further seeds."""
        grids = [trial for search in self._searches for trial in search.grid]
        return grids + [trial for search in self._searches for trial in self._further(search)]

    def trials_of(self, group: Group) -> list[Trial]:
        """All trials of one group made so far."""
        search = self._by_name[group.name]
        return [*search.grid, *self._further(search)]

    def grid(self, group: Group) -> list[Trial]:
        """The trials of a group's grid made so far."""
        return [*self._by_name[group.name].grid]

    def best(self, group: Group) -> Trial | None:
        """The grid's chosen trial; None until the whole grid has ended, and where no trial can be chosen."""
        return self._by_name[group.name].best

    def selected(self, group: Group) -> dict[int, Trial]:
        """Seed to the trial at the chosen grid point, ended or not, for seeds whose trial has been made."""
        search = self._by_name[group.name]
        if search.best is None:
            return {}
        return {self.plan.seeds[0]: search.best} | {t.settings["seed"]: t for t in self._further(search)}

    def _further(self, search: GroupSearch) -> Iterator[Trial]:
        return (search.further[seed] for seed in self.plan.seeds[1:] if seed in search.further)

    def _waits(self, key: str) -> bool:
        return not any(key in ended for ended in (self.results, self.stopped, self.running))

    # Consequences of a result

    def _make_grid(self, search: GroupSearch, parent: str | None) -> None:
        search.points, search.halving = self._begin(search.group, parent)
        self._extend(search)

    def _extend(self, search: GroupSearch) -> None:
        """Make the trials that a search may now have; choose where it has ended."""
        while (trial := search.points.next(self.results)) is not None:
            self._add(trial, Place(GRID, search.index, len(search.grid)))
            search.grid.append(trial)
            if search.halving is not None:
                self._halve(search.halving, trial.key)
            if trial.key not in self.results and trial.key not in self.stopped:
                search.open.add(trial.key)
        if search.open:
            return
        best = search.choice(self.results)
        if best is None:
            self._go_on(search)
            return
        if not self._has_weights(best.key):
            return
        search.best = best
        for child in search.children:
            self._make_grid(child, best.key)
        for position in range(len(self.plan.seeds) - 1):
            self._make_seed(search, position)

    def _halve(self, halving: Halving, key: str) -> None:
        """Take what a search says of a trial on disk."""
        if self.results.get(key) is not None:
            halving.take(key, read_history(self.root / key))
        if key in halving.stopped:
            self.stopped[key] = halving.stopped[key]
            self.results.pop(key, None)

    def _go_on(self, search: GroupSearch) -> None:
        """Let the best of a grid's stopped trials go on, since the grid has no other."""
        key = search.best_stopped()
        if key is None or search.halving is None:
            return
        search.halving.go_on(key)
        del self.stopped[key]
        if (result := read_result(self.root / key)) is not None:  # another search did
            self.results[key] = result
            self._extend(search)
        else:
            self._reopen(key)

    def _make_seed(self, search: GroupSearch, position: int) -> None:
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
        self._add(trial, Place(FURTHER_SEEDS, search.index, position))
        if trial.key in self.results and self._has_weights(trial.key):
            self._make_child_seeds(search, position)

    def _make_child_seeds(self, search: GroupSearch, position: int) -> None:
        for child in search.children:
            self._make_seed(child, position)

    def _add(self, trial: Trial, place: Place) -> None:
        """Add a trial, with its result where one is on disk; else it waits."""
        key = trial.key
        if key not in self._trials:
            self._trials[key] = trial
            result = read_result(self.root / key)
            if result is not None:
                self.results[key] = result
                self._unchecked.add(key)
        self._queue.add(key, place)

    def _has_weights(self, key: str) -> bool:
        """Whether a result has its weights; one on disk without them, or with others, is dropped and run again."""
        if key not in self._unchecked:
            return True
        self._unchecked.remove(key)
        result = self.results[key]
        if result is not None and self._are_weights_of(key, result):
            return True
        self._refused.add(key)
        del self.results[key]
        self._reopen(key)
        return False

    def _reopen(self, key: str) -> None:
        """Let a trial run again; the choice of its grids waits for it."""
        self._queue.reopen(key)
        for place in self._queue.places[key]:
            if place.phase == GRID:
                self._searches[place.group].open.add(key)

    def _are_weights_of(self, key: str, result: TrialResult) -> bool:
        folder = self.root / key
        return self._hashes.of(folder / WEIGHTS) == result.weights_sha256 and is_described(folder)
