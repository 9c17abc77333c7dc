"""Two trials side by side: what each reached, and which of their inputs differ."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.commands.why_trial import StoredTrial, differences, shown
from pipeline.layout import Workspace
from pipeline.results import TrialResult
from pipeline.training.plan import RESULT, read_result

NUMBERS = ("selection", "best_epoch", "epochs_run", "train_seconds", "parameters")


@dataclass(frozen=True)
class Number:
    """One number of both trials; None where it is not defined or the trial has not finished."""

    name: str
    before: float | None
    after: float | None


def compare_trials(first: str, second: str, workspace: Workspace) -> tuple[list[str], Any]:
    """Set two trials side by side.

    Args:
        first, second: their keys.

    Returns:
        Lines to print, and the same as JSON.
    """
    before, after = StoredTrial(workspace, first), StoredTrial(workspace, second)
    one, other = (read_result((workspace.trial(key) / RESULT).parent) for key in (first, second))
    numbers = _numbers(one, other)
    inputs = [line.strip() for line in differences(before, after)]
    versions = _versions(one, other)
    lines = [f"before: {before.title}", f"after:  {after.title}", ""]
    lines += [_line(at) for at in numbers]
    lines += ["", "Inputs that differ:", *(f"  {line}" for line in inputs or ["none"])]
    if versions:
        lines += ["", "Trained with other versions or hardware:", *(f"  {line}" for line in versions)]
    payload = {
        "before": first,
        "after": second,
        "numbers": [asdict(at) for at in numbers],
        "inputs": inputs,
        "versions": versions,
    }
    return lines, payload


def _numbers(one: TrialResult | None, other: TrialResult | None) -> list[Number]:
    every = dict.fromkeys([*(one.metrics if one else ()), *(other.metrics if other else ())])
    names = [name for name in every if name not in (*NUMBERS, "epoch")]
    found = [Number(name, getattr(one, name, None), getattr(other, name, None)) for name in NUMBERS]
    metrics = [(one.metrics if one else {}, other.metrics if other else {})]
    return found + [Number(name, a.get(name), b.get(name)) for a, b in metrics for name in names]


def _line(at: Number) -> str:
    values = [f"{'n/a' if value is None else f'{value:.6g}':>12}" for value in (at.before, at.after)]
    change = "" if at.before is None or at.after is None else f"{at.after - at.before:>+14.4g}"
    return f"  {at.name:<16}{''.join(values)}{change}"


def _versions(one: TrialResult | None, other: TrialResult | None) -> list[str]:
    """What differs of the versions and the hardware that both stored."""
    if one is None or other is None:
        return []
    both = [name for name in one.versions if name in other.versions and one.versions[name] != other.versions[name]]
    return [f"{name}: {shown(one.versions, name)} -> {shown(other.versions, name)}" for name in both]
