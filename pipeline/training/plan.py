"""Trials, addressed by content, and the plan that says which may run now.

A group is what one grid searches: (task, backbone, method). Its trials are the grid with the first seed, then the
chosen point with the further seeds. A method with a parent starts from the parent group's selected trial of the same
seed, so its trials become known when that selection is. Everything that changes what a trial learns is in its
settings; their hash is its key and its folder's name, so that a finished trial is never run again.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import TrialsFailedError
from pipeline.storage import content_key, write_json

RESULT = "result.json"


@dataclass(frozen=True)
class Trial:
    """One training run: `settings` hold all that changes its result, as JSON."""

    group: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        return content_key(self.settings)

    @property
    def parent(self) -> str | None:
        """Key of the trial that this one starts from."""
        found: str | None = self.settings.get("parent")
        return found

    @property
    def label(self) -> str:
        """For a progress line: the group, the grid point and the seed."""
        s = self.settings
        return f"{self.group} bs={s['batch_size']} lr={s['learning_rate']:g} seed={s['seed']}"


@dataclass(frozen=True)
class Group:
    """One grid: `settings` are common to its trials; `parent` names the group that it starts from."""

    name: str
    settings: Mapping[str, Any]
    parent: str | None = None


Results = Mapping[str, Mapping[str, Any] | None]
"""Key to a trial's result; None for a trial that failed for good; absent while it has not run."""


@dataclass(frozen=True)
class Plan:
    """Which trials there are, given what has finished."""

    groups: tuple[Group, ...]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    _by_name: dict[str, Group] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {group.name: group for group in self.groups})

    @property
    def total(self) -> int:
        """How many trials there will be if none fails."""
        return len(self.groups) * (len(self.batch_sizes) * len(self.learning_rates) + len(self.seeds) - 1)

    def known(self, results: Results) -> list[Trial]:
        """All trials whose settings are known by now, finished or not; the grids first."""
        grids = [trial for group in self.groups for trial in self._grid(group, results)]
        return grids + [trial for group in self.groups for trial in self._further_seeds(group, results)]

    def best(self, group: Group, results: Results) -> Trial | None:
        """The grid's best trial by selection score (ties: the first); None until all of the grid has run."""
        grid = self._grid(group, results)
        if not grid or any(trial.key not in results for trial in grid):
            return None
        scored = [(result["selection"], trial) for trial in grid if (result := results[trial.key]) is not None]
        scored = [(value, trial) for value, trial in scored if not math.isnan(value)]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def selected(self, group: Group, results: Results) -> dict[int, Trial]:
        """Seed to the trial at the chosen grid point, for seeds whose trial is known."""
        best = self.best(group, results)
        if best is None:
            return {}
        further = {trial.settings["seed"]: trial for trial in self._further_seeds(group, results)}
        return {best.settings["seed"]: best, **further}

    def failures(self, results: Results) -> list[Trial]:
        """Trials that failed for good."""
        return [t for t in self.known(results) if t.key in results and results[t.key] is None]

    def check(self, results: Results) -> None:
        """Raise TrialsFailedError when a group has nothing to select from."""
        for group in self.groups:
            if self.best(group, results) is None:
                failed = [t for t in self._grid(group, results) if t.key in results and results[t.key] is None]
                where = f"; see error.txt in the trial folders {', '.join(t.key for t in failed[:3])}" if failed else ""
                raise TrialsFailedError(
                    f"{group.name}: no trial of its grid finished{where}; mend the settings and run `dvc repro` again"
                )

    def _grid(self, group: Group, results: Results) -> list[Trial]:
        parent = self._parent_key(group, self.seeds[0], results)
        if group.parent and parent is None:
            return []
        return [
            self._trial(group, batch_size, rate, self.seeds[0], parent)
            for batch_size in self.batch_sizes
            for rate in self.learning_rates
        ]

    def _further_seeds(self, group: Group, results: Results) -> Iterator[Trial]:
        best = self.best(group, results)
        if best is None:
            return
        for seed in self.seeds[1:]:
            parent = self._parent_key(group, seed, results)
            if group.parent is None or parent is not None:
                yield self._trial(group, best.settings["batch_size"], best.settings["learning_rate"], seed, parent)

    def _parent_key(self, group: Group, seed: int, results: Results) -> str | None:
        if group.parent is None:
            return None
        trial = self.selected(self._by_name[group.parent], results).get(seed)
        return trial.key if trial is not None and results.get(trial.key) is not None else None

    def _trial(self, group: Group, batch_size: int, rate: float, seed: int, parent: str | None) -> Trial:
        point: dict[str, Any] = {"batch_size": batch_size, "learning_rate": rate, "seed": seed}
        if parent is not None:
            point["parent"] = parent
        return Trial(group.name, {**group.settings, **point})


def finished(
    root: Path, plan: Plan, results: Results | None = None, running: Collection[str] = ()
) -> dict[str, Mapping[str, Any] | None]:
    """Results on disk of the plan's trials. A selected trial whose weights are gone counts as not run.

    Selection needs results, and more trials become known through it, hence the loop.

    Args:
        results: what is known already, failures among it.
        running: keys not to look at.
    """
    found = dict(results or {})
    while True:
        before = len(found)
        for trial in plan.known(found):
            if trial.key not in found and trial.key not in running:
                result = read_result(root / trial.key)
                if result is not None:
                    found[trial.key] = result
        if len(found) == before:
            break
    for group in plan.groups:
        for trial in plan.selected(group, found).values():
            if found.get(trial.key) is not None and not (root / trial.key / "model.safetensors").is_file():
                del found[trial.key]
    return found


def prune(root: Path, plan: Plan, results: Results) -> None:
    """Drop the weights of finished trials that were not selected: a grid keeps one checkpoint per seed."""
    keep = {t.key for group in plan.groups for t in plan.selected(group, results).values()}
    for trial in plan.known(results):
        if trial.key not in keep:
            for name in ("model.safetensors", "resume.pt"):
                (root / trial.key / name).unlink(missing_ok=True)


def read_result(directory: Path) -> dict[str, Any] | None:
    """The trial's result, or None where it has not finished; an unreadable marker counts as not finished."""
    try:
        result: dict[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result


def run_trial(settings: Mapping[str, Any], directory: Path, train: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run `train` in the trial's folder and write the marker last; a finished trial returns its stored result."""
    stored = read_result(directory)
    if stored is not None and (directory / "model.safetensors").is_file():
        return stored
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULT).unlink(missing_ok=True)  # of weights that are gone: a kill must not leave it beside new ones
    write_json(directory / "settings.json", settings)
    result = train(directory)
    write_json(directory / RESULT, result)
    (directory / "resume.pt").unlink(missing_ok=True)  # only now: until the marker is there it may be needed
    (directory / "error.txt").unlink(missing_ok=True)
    return result
