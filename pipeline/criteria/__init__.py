"""Exit criteria by name. Importing this package never imports Torch."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.criteria.base import Criterion, State
from pipeline.criteria.confidence import Confidence
from pipeline.criteria.entropy import Entropy
from pipeline.criteria.fixed import FixedExit
from pipeline.criteria.patience import Patience
from pipeline.errors import ParamsError, unknown

__all__ = ["CRITERIA", "Criterion", "State", "make"]

CRITERIA: dict[str, type[Criterion]] = {cls.name: cls for cls in (Patience, Confidence, Entropy, FixedExit)}


def make(name: str, settings: Mapping[str, Any] | None = None, *, key: str = "criterion") -> Criterion:
    """Build a criterion from its name and settings.

    Raises:
        ParamsError: unknown name, or a setting that the criterion does not have.
    """
    if name not in CRITERIA:
        raise unknown("criterion", name, CRITERIA, key=key)
    cls = CRITERIA[name]
    fields = {f.name for f in dataclasses.fields(cls)}
    for setting, value in (settings or {}).items():
        if setting not in fields:
            raise unknown(f"setting of {name}", setting, fields, key=f"{key}.{name}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ParamsError(f"{key}.{name}.{setting}: {value!r} is not a number; give one")
    return cls(**(settings or {}))
