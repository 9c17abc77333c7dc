"""Exit criteria by name. Importing this package never imports Torch."""

import dataclasses
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.criteria.base import Criterion, State

__all__ = ["CRITERIA", "Criterion", "State", "fitted_values", "make"]

NAMES = (
    "patience",
    "confidence",
    "temperature",
    "entropy",
    "normalised_entropy",
    "patient_confidence",
    "divergence",
    "voting",
    "learned",
    "ensemble",
    "gates",
    "scheduled",
    "fixed",
    "oracle",
    "random",
)
"""Each is a module of this package, with the class CRITERION."""
CRITERIA: dict[str, type[Criterion]] = {name: import_module(f"{__name__}.{name}").CRITERION for name in NAMES}


def make(
    name: str,
    settings: Mapping[str, Any] | None = None,
    fitted: Mapping[str, Any] | None = None,
    *,
    key: str = "criterion",
) -> Criterion:
    """Build a criterion from its name and settings.

    Args:
        settings: numbers, as params.yaml has them.
        fitted: the result of `fitted_values` of a fitted criterion, read back from JSON.

    Raises:
        ParamsError: unknown name, unknown setting, or an impossible value.
    """
    if name not in CRITERIA:
        raise unknown("criterion", name, CRITERIA, key=key)
    cls = CRITERIA[name]
    fields = {f.name for f in dataclasses.fields(cls) if not f.metadata.get("fitted")}
    for setting, value in (settings or {}).items():
        if setting not in fields:
            raise unknown(f"setting of {name}", setting, fields, key=f"{key}.{name}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ParamsError(f"{key}.{name}.{setting}: {value!r} is not a number; give one")
        if not math.isfinite(value):
            raise ParamsError(f"{key}.{name}.{setting}: {value} is not a finite number; give one")
    learned = {field: _frozen(value) for field, value in (fitted or {}).items()}
    try:
        return cls(**(settings or {}), **learned)
    except ParamsError as error:
        raise ParamsError(f"{key}.{error}") from None  # the criterion's own message lacks the key


def fitted_values(criterion: Criterion) -> dict[str, Any]:
    """The fields that `fit` set, for JSON; empty for a criterion that learns nothing. `make` takes them back."""
    fields = dataclasses.fields(criterion)
    return {f.name: getattr(criterion, f.name) for f in fields if f.metadata.get("fitted")}


def _frozen(value: Any) -> Any:
    """Lists to tuples, at every depth."""
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
