"""Which criteria are evaluated and how thresholds are chosen: blocks of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.evaluation.criteria import make
from pipeline.settings import Block, OpenShare, PositiveFloat

Window = tuple[PositiveFloat, PositiveFloat]


def ordered(window: Window) -> Window:
    """The window, if it is one; a ValueError says what is wrong."""
    if window[0] > window[1]:
        raise ValueError(f"window {list(window)} is empty; give [low, high]")
    return window


class Choose(Block):
    """How an operating point is chosen on selection rows (pipeline/evaluation/choosing.py says each rule in full).

    window: the best score in the speed-up window. speedup: the setting nearest to a layer speed-up of `target`, at or
    above it. risk: the fastest setting whose loss against the full model is at most `epsilon` with probability
    1 - `delta`.
    """

    rule: Literal["window", "speedup", "risk"] = "window"
    target: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    epsilon: OpenShare | None = None
    """Share of rows that may be lost: 0.02 is two points of accuracy at most."""
    delta: OpenShare | None = None
    loss: Literal["gap", "consistency"] | None = None
    """gap (the default): a row is lost when it is wrong and the full model is right; consistency: when the answer is
    another than the full model's."""
    tolerance: PositiveFloat | None = None
    """Regression only: label units that an answer may be further off without being lost."""

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
        """Whether the rule cannot be applied to a regression."""
        return self.rule == "risk" and self.tolerance is None


class Evaluate(Block):
    """Criteria and their settings, and how an operating point is chosen."""

    criteria: dict[str, dict[str, float]] = Field(
        default={"patience": {}, "confidence": {}, "entropy": {}}, min_length=1
    )
    window: Window = (1.30, 1.96)
    """Layer speed-ups that an operating point may have under the rule `window`; images have their own."""
    choose: Choose = Choose()

    @field_validator("criteria")
    @classmethod
    def _known(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, settings in value.items():
            make(name, settings, key="evaluate.criteria")
        return value

    @field_validator("window")
    @classmethod
    def _ordered(cls, value: Window) -> Window:
        return ordered(value)
