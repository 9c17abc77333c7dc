"""The base class of blocks of params.yaml, and their number types."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
OpenShare = Annotated[float, Field(gt=0, lt=1, strict=True)]


class Block(BaseModel):
    """A block of params.yaml; unknown keys are errors, and fields never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
