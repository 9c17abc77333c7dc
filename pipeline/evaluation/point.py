"""Conversion of an operating point to its criterion, and back.

All engines that decide at a stored point (live inference, attack, predictions, diagnosis) use it, so that each decides
by the settings, the fit and the threshold that evaluate chose.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import JsonValue

from pipeline.errors import ArtifactError, PipelineError
from pipeline.evaluation.criteria import Criterion, fitted_values, make
from pipeline.evaluation.sweep import NEVER, Sweep, sweep
from pipeline.evaluation.trace import Trace
from pipeline.results import OperatingPoint, Result
from pipeline.results.base import parts_of

Stored = TypeVar("Stored", bound=Result)


def criterion_of(point: OperatingPoint) -> Criterion | None:
    """The criterion with its settings and its fit; None for all layers.

    Its threshold is `point.limit`.

    Raises:
        ArtifactError: the point holds a field that its criterion does not learn.
        ParamsError: unknown criterion, unknown setting, or an impossible value.

    >>> criterion_of(OperatingPoint(criterion="patience", settings={"tau": 1.0}, threshold=6.0))
    Patience(tau=1.0)
    """
    if point.criterion is None:
        return None
    criterion = make(point.criterion, point.settings, key="operating point")
    _refuse_fit(criterion, point.fitted)
    return make(point.criterion, point.settings, point.fitted, key="operating point")


def read_with_points(cls: type[Stored], path: Path, remedy: str) -> Stored:
    """Read a result whose operating points must have a criterion, with settings and a fit of its own.

    Raises:
        ArtifactError: as `Result.read`, or such a point.
    """
    result = cls.read(path, remedy)
    for place, part in parts_of(result):
        if isinstance(part, OperatingPoint):
            try:
                criterion_of(part)
            except PipelineError as error:
                reason = str(error).removeprefix("operating point: ").partition("; ")[0]
                raise ArtifactError(f"{path}: {place}: {reason}; {remedy}") from None
    return result


def point_of(criterion: Criterion | None, settings: Mapping[str, float], threshold: float) -> OperatingPoint:
    """The operating point of a criterion at a threshold.

    Args:
        criterion: fitted, where it learns; None: all layers.
        settings: those that params.yaml gives; the others keep their defaults.
        threshold: infinity means that no row leaves before the last exit.
    """
    return OperatingPoint(
        criterion=None if criterion is None else criterion.name,
        settings={name: float(value) for name, value in settings.items()},
        fitted={} if criterion is None else {name: _json(value) for name, value in fitted_values(criterion).items()},
        threshold=None if threshold == NEVER else float(threshold),
    )


def sweep_at(trace: Trace, point: OperatingPoint) -> Sweep:
    """Replay at an operating point: a sweep of one threshold."""
    return sweep(trace, criterion_of(point) or make("fixed"), np.array([point.limit]))


def _json(value: object) -> JsonValue:
    """Tuples to lists, at every depth."""
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    assert isinstance(value, (int, float, str))
    return value


def _refuse_fit(criterion: Criterion, fitted: Mapping[str, JsonValue]) -> None:
    """Raise ArtifactError where `fitted` has not the fields that the criterion learns, or no lists of numbers."""
    remedy = "run `dvc repro -f evaluate` for the task"
    for name in fitted_values(criterion):
        if name not in fitted:  # unfitted it would decide otherwise
            raise ArtifactError(f"operating point: fitted.{name}: missing, and {criterion.name!r} learns it; {remedy}")
    for name, value in fitted.items():
        if name not in fitted_values(criterion):
            raise ArtifactError(f"operating point: fitted.{name}: {criterion.name!r} does not learn that; {remedy}")
        if not _numbers(value):
            raise ArtifactError(f"operating point: fitted.{name}: {value!r} is not lists of numbers; {remedy}")


def _numbers(value: JsonValue) -> bool:
    """Whether the value is a list of numbers, or of such lists."""
    if not isinstance(value, list):
        return False
    plain = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
    return plain or all(_numbers(item) for item in value)
