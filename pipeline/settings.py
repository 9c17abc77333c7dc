"""The base class of blocks of params.yaml, and their number types."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_name(name: str) -> str:
    """The name, if it may stand in a path, a command, a DVC key, a lock and an MLflow filter; else a ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is no name; begin with a letter or digit, then letters, digits, - and _, 64 in all"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
"""What becomes a path, a command word, a key of DVC or MLflow: one rule for all of them."""
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
"""NumPy, Torch and the seeds made of it and an epoch take it."""

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
OpenShare = Annotated[float, Field(gt=0, lt=1, strict=True)]


class Block(BaseModel):
    """A block of params.yaml; unknown keys are errors, and fields never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
