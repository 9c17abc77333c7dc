"""The block `evaluate` of params.yaml: criteria, and how thresholds are chosen."""

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, field_validator, model_validator

from pipeline.evaluation.criteria import make
from pipeline.settings import Block, OpenShare, PositiveFloat

Window = tuple[PositiveFloat, PositiveFloat]


def ascending(window: Window) -> Window:
    """The window, if low <= high; else a ValueError."""
    if window[0] > window[1]:
        raise ValueError(f"window {list(window)} is empty; give [low, high]")
    return window


class Choose(Block):
    """The chooser of thresholds (pipeline/evaluation/choosing.py describes each in full).

    window: the best score in the speed-up window. speedup: the threshold with the smallest layer speed-up that is at
    least `target`. risk: the fastest threshold whose loss against the full model is at most `epsilon` with probability
    1 - `delta`.
    """

    rule: Literal["window", "speedup", "risk"] = "window"
    target: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] | None = None
    epsilon: OpenShare | None = None
    """Share of rows that may be lost: 0.02 is two points of accuracy at most."""
    delta: OpenShare | None = None
    loss: Literal["gap", "consistency"] | None = None
    """A row is lost where it is wrong and the full model is right (gap, the default), or where its answer differs from
    the full model's (consistency)."""
    tolerance: PositiveFloat | None = None
    """Regression only: by how many label units an answer may be worse without being lost."""

    @model_validator(mode="after")
    def _complete(self) -> "Choose":
        needed = {"window": (), "speedup": ("target",), "risk": ("epsilon", "delta")}[self.rule]
        allowed = {"rule", *needed, *(("loss", "tolerance") if self.rule == "risk" else ())}
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"rule {self.rule!r} needs {name}; add it")
        for name, value in self:
            if value is not None and name not in allowed:
                raise ValueError(f"rule {self.rule!r} has no {name}; take it out")
        return self

    def lacks_tolerance(self) -> bool:
        """Whether a tolerance is missing for a regression."""
        return self.rule == "risk" and self.tolerance is None


class Evaluate(Block):
    """Criteria with their settings, and the chooser of their thresholds."""

    criteria: dict[str, dict[str, StrictFloat]] = Field(
        default={"patience": {}, "confidence": {}, "entropy": {}}, min_length=1
    )
    window: Window = (1.30, 1.96)
    """Lowest and highest layer speed-up for the rule `window`; images have their own."""
    choose: Choose = Choose()

    @field_validator("criteria")
    @classmethod
    def _check_criteria(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, settings in value.items():
            make(name, settings, key="evaluate.criteria")
        return value

    @field_validator("window")
    @classmethod
    def _check_window(cls, value: Window) -> Window:
        return ascending(value)
