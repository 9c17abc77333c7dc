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
    "fixed",
    "oracle",
    "random",
)
"""Each has a module of its name here, and a class CRITERION in it."""
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
        fitted: what `fitted_values` gave of a criterion that learned from rows, back from JSON.

    Raises:
        ParamsError: unknown name, a setting that the criterion does not have, or a value that it cannot take.
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
        raise ParamsError(f"{key}.{error}") from None  # the criterion knows its name and not who asks


def fitted_values(criterion: Criterion) -> dict[str, Any]:
    """What the criterion learned in `fit`, for JSON; empty for one that learns nothing. `make` takes it back."""
    fields = dataclasses.fields(criterion)
    return {f.name: getattr(criterion, f.name) for f in fields if f.metadata.get("fitted")}


def _frozen(value: Any) -> Any:
    """Lists to tuples, all the way down."""
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
