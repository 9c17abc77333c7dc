"""Trials with their content keys, and the plan of all trials.

A group is one (task, backbone, method). Its trials are the grid with the first seed, then the chosen point with the
further seeds. A method with a parent starts from the parent group's selected trial of the same seed, so its trials are
known only after that selection. A trial's settings hold all inputs of its training. Their hash is its key and the name
of its folder, so that a finished trial is never run again.

A plan does not change; `pipeline/training/progress.py` holds the state of its trials.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ArtifactError
from pipeline.results import TrialResult
from pipeline.storage import content_key, file_hash, write_json

RESULT = "result.json"
WEIGHTS = "model.safetensors"
RESUME = "resume.json"
HISTORY = "metrics.jsonl"
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class Trial:
    """One training run.

    Attributes:
        settings: all inputs of its result, as JSON.
        names: names of the inputs that the settings identify by content: task, backbone, hub name. Not in the key.
    """

    group: str
    settings: Mapping[str, Any]
    names: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Hash of the settings' canonical JSON."""
        return content_key(self.settings)

    @property
    def parent(self) -> str | None:
        """Key of the trial that this one starts from."""
        parent: str | None = self.settings.get("parent")
        return parent

    @property
    def label(self) -> str:
        """Group, grid point and seed, for a progress line."""
        s = self.settings
        return f"{self.group} bs={s['batch_size']} lr={s['learning_rate']:g} seed={s['seed']}"


@dataclass(frozen=True)
class Search:
    """How a grid is searched (docs/design/search.md).

    Attributes:
        method: grid: all points, each to its end; asha: all points, of which some stop early; bayes: suggested points.
        trials: number of suggested points.
        reduction: of so many trials that came to a rung, asha lets one go on.
    """

    method: Literal["grid", "asha", "bayes"] = "grid"
    trials: int = 1
    reduction: int = 3


@dataclass(frozen=True)
class Group:
    """The trials of one (task, backbone, method).

    Attributes:
        settings, names: those that all its trials share.
        parent: name of the group that it starts from.
        batch_sizes, learning_rates: the grid.
    """

    name: str
    settings: Mapping[str, Any]
    parent: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = (32,)
    learning_rates: tuple[float, ...] = (1e-4,)
    search: Search = Search()

    @property
    def points(self) -> int:
        """Number of points that its search tries."""
        if self.search.method == "bayes":
            return self.search.trials
        return len(self.batch_sizes) * len(self.learning_rates)

    @property
    def epochs(self) -> int:
        """Epochs of a trial that nothing stops."""
        return int(self.settings["training"]["epochs"])


Results = Mapping[str, TrialResult | None]
"""Key to result of each trial that has ended; None for a failed one."""


@dataclass(frozen=True)
class Plan:
    """All groups with their seeds.

    Names of groups are distinct, seeds are distinct, each parent is a group, and equal settings have equal grids.
    """

    groups: tuple[Group, ...]
    seeds: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of trials if none fails."""
        return sum(group.points for group in self.groups) + len(self.groups) * (len(self.seeds) - 1)

    def grid(self, group: Group, parent: str | None = None) -> list[Trial]:
        """The trials of the group's grid with the first seed, ordered by batch size.

        Args:
            parent: key of the trial that all of them start from, where the group has a parent.
        """
        return [
            self.trial(group, self.seeds[0], parent, batch_size, rate)
            for batch_size in group.batch_sizes
            for rate in group.learning_rates
        ]

    def reseeded(self, group: Group, point: Trial, seed: int, parent: str | None = None) -> Trial:
        """The trial at the grid point of `point`, with another seed and parent."""
        return self.trial(group, seed, parent, point.settings["batch_size"], point.settings["learning_rate"])

    def trial(self, group: Group, seed: int, parent: str | None, batch_size: int, rate: float) -> Trial:
        """The trial of a group at a point."""
        point: dict[str, Any] = {"batch_size": batch_size, "learning_rate": rate, "seed": seed}
        if parent is not None:
            point["parent"] = parent
        return Trial(group.name, {**group.settings, **point}, group.names)


def read_result(directory: Path) -> TrialResult | None:
    """The trial's result; None where it is missing or unreadable."""
    try:
        return TrialResult.read(directory / RESULT, "")
    except ArtifactError:
        return None


def is_described(directory: Path) -> bool:
    """Whether the description of a trial's model is whole; no hash names it, and its weights are useless without."""
    try:
        return isinstance(json.loads((directory / DESCRIPTION).read_text(encoding="utf-8")), dict)
    except FileNotFoundError:
        return True  # as it is where weights are fetched later
    except (OSError, ValueError, RecursionError):
        return False


def remove_state(directory: Path, keep: Collection[str] = ()) -> None:
    """Remove the state from which an interrupted trial goes on, but for the files to keep."""
    for path in directory.glob("resume*"):
        if path.name not in keep:
            path.unlink(missing_ok=True)


def read_history(directory: Path) -> list[dict[str, float]]:
    """The trial's epochs with their metrics, as far as they are readable."""
    rows = []
    try:
        for line in (directory / HISTORY).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append({name: float(value) for name, value in row.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    return rows


def run_trial(settings: Mapping[str, Any], directory: Path, train: Callable[[Path], TrialResult]) -> TrialResult:
    """Run `train` in the trial's folder and write result.json last; a finished trial returns its stored result."""
    stored = read_result(directory)
    weights = directory / WEIGHTS
    whole = stored is not None and is_described(directory) and weights.is_file()
    if stored is not None and whole and file_hash(weights) == stored.weights_sha256:
        return stored
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULT).unlink(missing_ok=True)  # a kill must not leave an old result beside new weights
    write_json(directory / "settings.json", settings)
    result = train(directory)
    result.write(directory / RESULT)
    remove_state(directory)  # needed until the result is stored
    (directory / "error.txt").unlink(missing_ok=True)
    return result
