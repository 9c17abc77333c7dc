"""Trials, addressed by content, and the plan that says which there are.

A group is what one grid searches: (task, backbone, method). Its trials are the grid with the first seed, then the
chosen point with the further seeds. A method with a parent starts from the parent group's selected trial of the same
seed, so its trials can be made only when that selection is there. Everything that changes what a trial learns is in its
settings; their hash is its key and its folder's name, so that a finished trial is never run again.

A plan does not change; what became of its trials so far is in `pipeline/training/progress.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.results import TrialResult
from pipeline.storage import content_key, write_json

RESULT = "result.json"
WEIGHTS = "model.safetensors"
RESUME = "resume.pt"


@dataclass(frozen=True)
class Trial:
    """One training run.

    Attributes:
        settings: all that changes its result, as JSON.
        names: where a worker finds what the settings identify by content: task, backbone, hub name. No part of the key.
    """

    group: str
    settings: Mapping[str, Any]
    names: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Hash of the settings' canonical JSON (sorted names, no spaces): of their content, not of their order."""
        return content_key(self.settings)

    @property
    def parent(self) -> str | None:
        """Key of the trial that this one starts from."""
        parent: str | None = self.settings.get("parent")
        return parent

    @property
    def label(self) -> str:
        """For a progress line: the group, the grid point and the seed."""
        s = self.settings
        return f"{self.group} bs={s['batch_size']} lr={s['learning_rate']:g} seed={s['seed']}"


@dataclass(frozen=True)
class Group:
    """One grid.

    Attributes:
        settings, names: common to its trials.
        parent: name of the group that it starts from.
        batch_sizes, learning_rates: the grid.
    """

    name: str
    settings: Mapping[str, Any]
    parent: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = (32,)
    learning_rates: tuple[float, ...] = (1e-4,)


Results = Mapping[str, TrialResult | None]
"""Key to a trial's result; None for a trial that failed for good; absent while it has not run."""


@dataclass(frozen=True)
class Plan:
    """Which trials there are.

    Names of groups are distinct, and so are seeds; a parent is among the groups; equal settings have equal grids.
    """

    groups: tuple[Group, ...]
    seeds: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many trials there will be if none fails."""
        grids = sum(len(group.batch_sizes) * len(group.learning_rates) for group in self.groups)
        return grids + len(self.groups) * (len(self.seeds) - 1)

    def grid(self, group: Group, parent: str | None = None) -> list[Trial]:
        """The group's grid with the first seed, a batch size at a time.

        Args:
            parent: key of the trial that all of them start from, where the group has a parent.
        """
        return [
            self._trial(group, batch_size, rate, self.seeds[0], parent)
            for batch_size in group.batch_sizes
            for rate in group.learning_rates
        ]

    def reseeded(self, group: Group, point: Trial, seed: int, parent: str | None = None) -> Trial:
        """The trial at the grid point of another one, with a seed and a parent of its own."""
        return self._trial(group, point.settings["batch_size"], point.settings["learning_rate"], seed, parent)

    def _trial(self, group: Group, batch_size: int, rate: float, seed: int, parent: str | None) -> Trial:
        point: dict[str, Any] = {"batch_size": batch_size, "learning_rate": rate, "seed": seed}
        if parent is not None:
            point["parent"] = parent
        return Trial(group.name, {**group.settings, **point}, group.names)


def read_result(directory: Path) -> TrialResult | None:
    """The trial's result, or None where it has not finished; an unreadable marker counts as not finished."""
    try:
        return TrialResult.read(directory / RESULT, "")
    except ArtifactError:
        return None


def run_trial(settings: Mapping[str, Any], directory: Path, train: Callable[[Path], TrialResult]) -> TrialResult:
    """Run `train` in the trial's folder and write the marker last; a finished trial returns its stored result."""
    stored = read_result(directory)
    if stored is not None and (directory / WEIGHTS).is_file():
        return stored
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULT).unlink(missing_ok=True)  # of weights that are gone: a kill must not leave it beside new ones
    write_json(directory / "settings.json", settings)
    result = train(directory)
    result.write(directory / RESULT)
    (directory / RESUME).unlink(missing_ok=True)  # only now: until the marker is there it may be needed
    (directory / "error.txt").unlink(missing_ok=True)
    return result
