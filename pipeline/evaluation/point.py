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
from pipeline.evaluation.asked import decision_of
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
    return decision_of(dict(point)).criterion


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
