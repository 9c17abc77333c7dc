"""What a model is asked (a criterion, a threshold, settings) as the criterion and threshold that decide.

Every engine that answers requests uses it: the graphs of `export`, over HTTP or MLflow, and the live engine behind
`predict`. It needs what criteria need, so that exported models answer with NumPy alone.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pipeline.errors import ArtifactError, ParamsError, unknown
from pipeline.evaluation.criteria import CRITERIA, Criterion, fitted_values, make

FULL = "full"
"""The name of all layers, where a criterion's is asked for."""


class Decision(NamedTuple):
    """How rows leave: a criterion at a threshold, or all layers."""

    criterion: Criterion | None
    """With its settings and its fit; None: all layers."""
    threshold: float
    """A row leaves at the first exit whose score reaches it; infinity: no row leaves before the last exit."""

    @property
    def name(self) -> str:
        """The criterion's name, or "full"."""
        return FULL if self.criterion is None else self.criterion.name

    @property
    def stored_threshold(self) -> float | None:
        """The threshold as JSON has it: None for infinity."""
        return self.threshold if math.isfinite(self.threshold) else None


ALL = Decision(None, math.inf)
"""All layers."""


def decision_of(point: Mapping[str, Any], remedy: str = "run `dvc repro -f evaluate` for the task") -> Decision:
    """The decision of a stored operating point.

    Args:
        point: criterion, settings, fitted and threshold, as `OperatingPoint` has them.

    Raises:
        ArtifactError: the fit lacks what the criterion learns, holds what it does not, or is no lists of numbers.
        ParamsError: unknown criterion, unknown setting, or an impossible value.
    """
    name, settings, fitted = point["criterion"], point["settings"], point["fitted"]
    if name is None:
        return ALL
    _refuse_fit(make(name, settings, key="operating point"), fitted, remedy)
    threshold = math.inf if point["threshold"] is None else float(point["threshold"])
    return Decision(make(name, settings, fitted, key="operating point"), threshold)


def default_of(points: Mapping[str, Decision]) -> str:
    """The criterion where none is asked for: the first, which selection rows prefer; without points all layers."""
    return next(iter(points), FULL)


def asked(
    points: Mapping[str, Decision],
    name: str | None,
    threshold: float | None = None,
    settings: Mapping[str, float] | None = None,
) -> Decision:
    """The decision that a request asks for.

    A threshold was chosen for its criterion under its settings, and what a criterion learned it learned under its
    settings: a request that changes them brings a threshold, and changes none of a criterion that learns.

    Args:
        points: the model's own, by criterion.
        name: of a criterion, or "full" for all layers; None: `default_of`.
        threshold: None: the point's.
        settings: of the criterion, all that are not its defaults; None: the point's.

    Raises:
        ParamsError: an unknown criterion or setting, one that the model has no fit of, no threshold where one is
            needed, or one that decides nothing.

    >>> own = {"patience": Decision(make("patience"), 6.0)}
    >>> asked(own, None), asked(own, "confidence", 0.9).threshold, asked(own, "full").name
    (Decision(criterion=Patience(tau=0.5), threshold=6.0), 0.9, 'full')
    """
    name = default_of(points) if name is None else name
    if name == FULL:
        _refuse_at_full(threshold, settings)
        return ALL
    if name not in CRITERIA:
        raise unknown("criterion", name, [*CRITERIA, FULL], key="criterion")
    if threshold is not None and not math.isfinite(threshold):
        raise ParamsError(f"threshold: {threshold} is not finite; give a number, or criterion {FULL!r} for all layers")
    point = points.get(name)
    if point is None and threshold is None:
        raise ParamsError(f"criterion {name!r}: no threshold was chosen for it; give one, or take another")
    criterion = _criterion(name, settings, points)
    if threshold is not None:
        return Decision(criterion, float(threshold))
    assert point is not None  # or it is refused above
    if criterion != point.criterion:
        raise ParamsError(
            f"settings: the threshold of {name!r} was chosen for others; give a threshold too, or leave settings out"
        )
    return point


def _criterion(name: str, settings: Mapping[str, float] | None, points: Mapping[str, Decision]) -> Criterion:
    """The criterion under the settings that are asked for, with the model's fit where it learns."""
    own = points[name].criterion if name in points else None
    if own is not None and settings is None:
        return own
    given = make(name, settings)
    if not (learned := fitted_values(given if own is None else own)):
        return given
    if own is None:
        raise ParamsError(
            f"criterion {name!r}: learns from selection rows, and this model has no fit of it; "
            f"take one of {', '.join((*points, FULL))}"
        )
    if replace(given, **learned) != own:
        raise ParamsError(f"settings: {name!r} learned under others, which act only while it learns; leave them out")
    return own


def _refuse_at_full(threshold: float | None, settings: Mapping[str, float] | None) -> None:
    if threshold is not None:
        raise ParamsError(f"threshold: {threshold:g}, but no row leaves early at criterion {FULL!r}; leave it out")
    if settings:
        raise ParamsError(f"settings: criterion {FULL!r} has none; leave them out")


def _refuse_fit(criterion: Criterion, fitted: Mapping[str, Any], remedy: str) -> None:
    """Raise ArtifactError where `fitted` has not the fields that the criterion learns, or no lists of numbers."""
    for name in fitted_values(criterion):
        if name not in fitted:  # unfitted it would decide otherwise
            raise ArtifactError(f"operating point: fitted.{name}: missing, and {criterion.name!r} learns it; {remedy}")
    for name, value in fitted.items():
        if name not in fitted_values(criterion):
            raise ArtifactError(f"operating point: fitted.{name}: {criterion.name!r} does not learn that; {remedy}")
        if not _numbers(value):
            raise ArtifactError(f"operating point: fitted.{name}: {value!r} is not lists of numbers; {remedy}")


def _numbers(value: Any) -> bool:
    """Whether the value is a list of numbers, or of such lists."""
    if not isinstance(value, list):
        return False
    plain = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
    return plain or all(_numbers(item) for item in value)
