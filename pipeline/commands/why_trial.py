"""Why a trial ran: the inputs that no earlier trial had, and the code that has changed since."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.identity.code import CodeIdentity
from pipeline.identity.equivalence import canonical, read_equivalence, trained_by_other_code
from pipeline.layout import Workspace
from pipeline.results import TrialCode, Trials
from pipeline.training.code import FILE, trial_code
from pipeline.training.methods import METHODS
from pipeline.training.plan import RESULT, Trial

POINT = ("method", "batch_size", "learning_rate", "seed")
"""The settings that, with task and backbone, identify a trial within a plan."""
MEANING = {"data": "other rows, labels or tokens", "weights": "other pretrained weights"}


@dataclass(frozen=True)
class StoredTrial:
    """A trial's folder."""

    workspace: Workspace
    key: str

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Its settings by dotted name; empty where the file is cut short or holds none."""
        try:
            settings = json.loads((self.workspace.trial(self.key) / "settings.json").read_text(encoding="utf-8"))
            return flat(settings) if isinstance(settings, dict) else {}
        except (ValueError, RecursionError):
            return {}

    @cached_property
    def code(self) -> TrialCode | None:
        """The code that trained it; None where it is not stored."""
        try:
            return TrialCode.read(self.workspace.trial(self.key) / FILE, "train the trial again")
        except ArtifactError:
            return None

    @property
    def identity(self) -> CodeIdentity | None:
        """The definitions that trained it; None where they are not stored."""
        return CodeIdentity(self.code.definitions) if self.code else None

    @property
    def names(self) -> dict[str, str | None]:
        return self.code.names if self.code else {}

    @cached_property
    def started(self) -> float:
        """When it last started, in seconds since the epoch."""
        return (self.workspace.trial(self.key) / "settings.json").stat().st_mtime

    @property
    def title(self) -> str:
        group = [
            self.names.get("task"),
            self.names.get("backbone"),
            self.names.get("method", self.inputs.get("method")),
        ]
        point = [f"{name}={self.inputs.get(name)}" for name in POINT[1:]]
        folder = self.workspace.trial(self.key)
        failed = "failed" if (folder / "error.txt").is_file() else "not finished"
        state = "finished" if (folder / "result.json").is_file() else failed
        return f"{self.key}: {'/'.join(str(part) for part in group if part)} {' '.join(point)}, {state}"


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that has not run."""

    trial: Trial

    @cached_property
    def inputs(self) -> dict[str, Any]:
        return flat(self.trial.settings)

    @property
    def names(self) -> dict[str, str | None]:
        return dict(self.trial.names)

    @property
    def identity(self) -> CodeIdentity:
        return trial_code(self.trial.settings["modality"], self.trial.settings["method"])


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name.

    >>> flat({"seed": 1, "training": {"epochs": 3}})
    {'seed': 1, 'training.epochs': 3}
    """
    inputs: dict[str, Any] = {}
    for name, value in settings.items():
        inputs |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return inputs


def trial_keys(workspace: Workspace) -> list[str]:
    """Keys of all trials on this disk."""
    return sorted(path.parent.name for path in workspace.trials.glob("*/settings.json"))


def why_trial(key: str, workspace: Workspace) -> list[str]:
    """Lines to print: the trial, the inputs that no earlier trial had, and whether its code is today's."""
    trial = StoredTrial(workspace, key)
    return [trial.title, *_why_it_ran(trial), *_today(trial), *_in_plan(trial)]


def _why_it_ran(trial: StoredTrial) -> list[str]:
    others = [StoredTrial(trial.workspace, key) for key in trial_keys(trial.workspace) if key != trial.key]
    before = [other for other in others if other.started <= trial.started]
    if not before:
        return ["It ran because no trial had run before it."]
    nearest = min(before, key=lambda other: _distance(trial, other))
    lines = differences(nearest, trial)
    if not lines:
        return [f"Nothing differs from {nearest.key} but the names of settings."]
    return [f"It ran because no trial before it had its inputs. The nearest is {nearest.key}, which differs in", *lines]


def why_it_will_run(trial: Trial, workspace: Workspace) -> list[str]:
    """Lines to print: what a trial of the plan has that no finished trial has."""
    stored = [StoredTrial(workspace, key) for key in trial_keys(workspace)]
    finished = [other for other in stored if (workspace.trial(other.key) / RESULT).is_file()]
    if not finished:
        return ["  no trial has finished here"]
    planned = PlannedTrial(trial)
    nearest = min(finished, key=lambda other: _distance(planned, other))
    lines = differences(nearest, planned)
    return (
        [f"  {trial.key} differs from {nearest.key}, the nearest, in", *(f"  {line}" for line in lines)]
        if lines
        else [f"  {trial.key} finished, and its weights were dropped since it was not chosen"]
    )


def _distance(trial: "StoredTrial | PlannedTrial", other: StoredTrial) -> tuple[int, int, float]:
    """The distance of another trial: first by the point of the plan, then by other inputs, then by age."""
    differing = {n for n in {*trial.inputs, *other.inputs} if trial.inputs.get(n) != other.inputs.get(n)}
    points = sum(trial.names.get(name) != other.names.get(name) for name in ("task", "backbone"))
    return points + len(differing.intersection(POINT)), len(differing), -other.started


def differences(before: StoredTrial, after: StoredTrial | PlannedTrial) -> list[str]:
    """Lines to print: each input in which two trials differ."""
    lines = []
    for name in sorted({*before.inputs, *after.inputs}):
        old, new = (shown(inputs, name) for inputs in (before.inputs, after.inputs))
        if old == new:
            continue
        if name == "code" and before.identity and after.identity:
            lines += [f"  code: {line}" for line in before.identity.differences(after.identity)]
        elif name == "parent":
            lines.append(f"  parent: {old} -> {new} (`python -m pipeline why {new}` says why)")
        else:
            lines.append(f"  {name}: {old} -> {new}" + (f" ({MEANING[name]})" if name in MEANING else ""))
    return lines


def shown(inputs: Mapping[str, Any], name: str) -> str:
    """A setting's value, shortened where it is long; "not set" where it is missing."""
    value = inputs.get(name, "not set")
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _today(trial: StoredTrial) -> list[str]:
    """Whether the code that trained the trial is today's."""
    modality, method = trial.inputs.get("modality"), trial.inputs.get("method")
    if (
        trial.code is None
        or not isinstance(method, str)
        or method not in METHODS
        or modality not in METHODS[method].modalities
    ):
        return []
    today, equivalence = trial_code(modality, method), read_equivalence()
    if canonical(today.hash, equivalence) != trial.inputs.get("code"):
        lines = CodeIdentity(trial.code.definitions).differences(today)
        return ["Today's code differs, so it would be trained again:", *(f"  code: {line}" for line in lines)]
    if reasons := trained_by_other_code(trial.code.code, today, equivalence):
        return [f"Today's code differs and was declared to train alike: {'; '.join(reasons)}"]
    return ["Today's code is the code that trained it."]


def _in_plan(trial: StoredTrial) -> list[str]:
    try:
        trials = Trials.read(trial.workspace.trials_table, "run `dvc repro finetune`").trials
    except ArtifactError:
        return []
    record = next((record for record in trials if record.key == trial.key), None)
    if record is None:
        return ["The last plan does not have it."]
    if record.stopped_after is not None:
        what = f"Its search stopped it after epoch {record.stopped_after}, from where another search lets it go on."
    else:
        what = "It is not run again while its inputs stay the same."
    return [f"The last plan has it. {what}"]
