"""Why a number differs between two runs: which of their inputs do."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.commands.compare_runs import Run
from pipeline.commands.why_trial import MEANING, StoredTrial, flat, shown
from pipeline.identity.versions import HARDWARE

Kind = Literal["settings", "seeds", "data", "weights", "code", "libraries", "hardware"]
KINDS: tuple[Kind, ...] = ("settings", "seeds", "data", "weights", "code", "libraries", "hardware")
UNTRACKED = ("code", "parent", "data", "weights", "seed")
"""Settings of trials that are compared by what they stand for."""


@dataclass(frozen=True)
class Cause:
    """One input that differs.

    Attributes:
        where: the stages, splits or groups of models that it concerns.
        before, after: its values, shortened; "not set" where there is none.
    """

    kind: Kind
    name: str
    before: str
    after: str
    where: tuple[str, ...]


def causes(first: Run, second: Run) -> list[Cause]:
    """Every input that is stored with both runs and differs, by kind."""
    found = [*_settings(first, second), *_data(first, second), *_trials(first, second), *_code(first, second)]
    found += _timing(first, second)
    return sorted(_merged(found), key=lambda cause: KINDS.index(cause.kind))


def _merged(found: Iterable[Cause]) -> list[Cause]:
    """Equal differences as one, with all places."""
    places: dict[tuple[Kind, str, str, str], dict[str, None]] = {}
    for cause in found:
        places.setdefault((cause.kind, cause.name, cause.before, cause.after), {}).update(dict.fromkeys(cause.where))
    return [Cause(*what, tuple(where)) for what, where in places.items()]


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, and both values as shown, of what differs."""
    for name in sorted({*before, *after}):
        if before.get(name, "not set") != after.get(name, "not set"):
            yield name, shown(before, name), shown(after, name)


def _settings(first: Run, second: Run) -> Iterator[Cause]:
    """What stages hung on, of the stages and tasks that both have."""
    for stage in first.settings.keys() & second.settings.keys():
        for name, before, after in _differing(first.settings[stage], second.settings[stage]):
            kind: Kind = "settings"
            if name == "seeds":
                kind = "seeds"
            elif name.startswith(("weights.", "files.")):
                kind = "weights" if name.startswith("weights.") else "data"
            yield Cause(kind, name, before, after, (stage,))


def _data(first: Run, second: Run) -> Iterator[Cause]:
    """Prepared splits with other content."""
    for task in first.evaluated.keys() & second.evaluated.keys():
        one, other = first.manifest(task), second.manifest(task)
        if one is None or other is None:
            continue
        for split in sorted({*one.splits} & {*other.splits}):
            before, after = one.splits[split], other.splits[split]
            if before.sha256 != after.sha256:
                old, new = (f"{part.rows:,} rows {part.sha256[:8]}" for part in (before, after))
                yield Cause("data", split, old, new, (task,))


def _trials(first: Run, second: Run) -> Iterator[Cause]:
    """Inputs of the selected trials, seed by seed."""
    for task in first.evaluated.keys() & second.evaluated.keys():
        groups = {group.group: group for group in first.selected(task).groups}
        for group in second.selected(task).groups:
            if group.group not in groups:
                continue
            keys = {trial.seed: trial.key for trial in groups[group.group].trials}
            seeds = {trial.seed: trial.key for trial in group.trials}
            if keys.keys() != seeds.keys():
                yield Cause("seeds", "trained", _joined(keys), _joined(seeds), (group.group,))
            for seed in keys.keys() & seeds.keys():
                yield from _of_trial(first, second, keys[seed], seeds[seed], group.group)


def _joined(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _of_trial(first: Run, second: Run, key: str, other_key: str, group: str) -> Iterator[Cause]:
    before, after = first.records.get(key), second.records.get(other_key)
    if before is None or after is None:
        return
    one, other = flat(before.settings), flat(after.settings)
    for name, old, new in _differing(one, other):
        if name in MEANING:
            yield Cause("data" if name == "data" else "weights", f"{MEANING[name]} to train on", old, new, (group,))
        elif name not in UNTRACKED:
            yield Cause("settings", name, old, new, (group,))
    if one.get("code") != other.get("code"):
        for line in _definitions(first, second, key, other_key) or ["other definitions"]:
            yield Cause("code", f"training: {line}", shown(one, "code"), shown(other, "code"), (group,))
    if key != other_key:  # a trial that both runs used was trained once
        for name, old, new in _differing(before.versions, after.versions):
            if name in before.versions and name in after.versions and name != "commit":
                yield Cause("hardware" if name in HARDWARE else "libraries", name, old, new, (group,))


def _definitions(first: Run, second: Run, key: str, other_key: str) -> list[str]:
    """The definitions that differ, where both trials' folders are here."""
    one, other = StoredTrial(first.trials, key).identity, StoredTrial(second.trials, other_key).identity
    return one.differences(other) if one and other else []


def _code(first: Run, second: Run) -> Iterator[Cause]:
    """Code files that stages read, which dvc.lock has; what trains is told by its definitions."""
    for stage in sorted(first.code.keys() & second.code.keys()):
        if stage in ("finetune", "report", "settings"):
            continue
        for path, before, after in _differing(first.code[stage], second.code[stage]):
            yield Cause("code", path, before[:8], after[:8], (stage,))


def _timing(first: Run, second: Run) -> Iterator[Cause]:
    """Where wall times were measured."""
    for task in first.evaluated.keys() & second.evaluated.keys():
        one, other = first.latency(task), second.latency(task)
        if one and other and one.measured and other.measured:
            before, after = (
                {"device": m.device, "machine": m.machine, "threads": ", ".join(map(str, m.threads))}
                for m in (one.measured, other.measured)
            )
            for name, old, new in _differing(before, after):
                yield Cause("hardware", name, old, new, (f"latency@{task}",))
