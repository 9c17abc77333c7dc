"""The base class of blocks of params.yaml, and their number types."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.errors import nearest, shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_name(name: str) -> str:
    """The name, if it may stand in a path, a command, a DVC key, a lock and an MLflow filter; else a ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} is no name; begin with a letter or digit, then letters, digits, - and _, 64 in all"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
"""What becomes a path, a command word, a key of DVC or MLflow: one rule for all of them."""
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
"""NumPy, Torch and the seeds made of it and an epoch take it."""


def check_distinct(values: Any) -> Any:
    """The list, if no value is in it twice; else a ValueError."""
    if len(set(values)) < len(values):
        raise ValueError("repeats a value; give distinct ones")
    return values


Distinct = AfterValidator(check_distinct)
"""For lists that are sets."""

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Size = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
"""What is allocated or repeated as often as the number says."""
Count = Annotated[int, Field(ge=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
OpenShare = Annotated[float, Field(gt=0, lt=1, strict=True)]


UNKNOWN = "unknown_setting"
"""Type of pydantic's error for a key that a block does not have; its context names the key."""


class Block(BaseModel):
    """A block of params.yaml; unknown keys are errors, and fields never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        """Name a slip in a key before what it leaves missing."""
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                hint = nearest(str(key), cls.model_fields)
                raise PydanticCustomError(UNKNOWN, "no such setting{hint}", {"key": str(key), "hint": hint})
        return value
