"""The block `evaluate` of params.yaml: criteria, and how thresholds are chosen."""

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, field_validator, model_validator

from pipeline.errors import ParamsError
from pipeline.evaluation.criteria import make
from pipeline.evaluation.risks import GRADED, OF_PROBABILITIES
from pipeline.results.evaluated import Rule
from pipeline.results.latency import RunsIn
from pipeline.settings import Block, NonNegativeFloat, OpenShare, PositiveFloat

Window = tuple[PositiveFloat, PositiveFloat]


def ascending(window: Window) -> Window:
    """The window, if low <= high; else a ValueError."""
    if window[0] > window[1]:
        raise ValueError(f"window {list(window)} is empty; give [low, high]")
    return window


class Choose(Block):
    """The chooser of thresholds (pipeline/evaluation/choosing.py describes each in full).

    window: the best score in the speed-up window. speedup: the threshold with the smallest layer speed-up that is at
    least `target`. risk: the fastest threshold whose loss against the full model is at most `epsilon`, in the sense of
    `bound`. online: the threshold that a bandit likes best, without labels. latency: the best score whose expected time
    a row, by the cost of each exit as measured in `engine` on this machine, is at most `budget_ms`.
    """

    rule: Rule = "window"
    target: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] | None = None
    epsilon: OpenShare | None = None
    """Share of rows that may be lost: 0.02 is two points of accuracy at most. Of a graded loss, its mean."""
    delta: OpenShare | None = None
    """Probability with which more may be lost; crc has none."""
    loss: Literal["gap", "consistency", "brier", "brier_consistency", "error"] | None = None
    """A row is lost where it is wrong and the full model is right (gap, the default), or where its answer differs from
    the full model's (consistency). Graded: the growth of the Brier score, the distance of the distributions, and for a
    regression the growth of the error."""
    tolerance: PositiveFloat | None = None
    """Regression only: by how many label units an answer may be worse without being lost; the unit of `error`."""
    bound: Literal["binomial", "betting", "crc"] | None = None
    """binomial (the default) and betting hold with probability 1 - delta, binomial for losses of 0 or 1; crc holds on
    average."""
    cost: NonNegativeFloat | None = None
    """For online: what running all layers costs, in probability. None: 1."""
    budget_ms: PositiveFloat | None = None
    """For latency: milliseconds a row, one row at a time, in the mean over selection rows."""
    engine: RunsIn | None = None
    """For latency: what each exit is timed in, as in `latency.engines`. evaluate times it on graphs of its own; export
    keeps to the same budget in each of its precisions. None: pytorch."""

    @model_validator(mode="after")
    def _complete(self) -> "Choose":
        risk = ("epsilon",) if self.bound == "crc" else ("epsilon", "delta")
        needed = {"window": (), "speedup": ("target",), "risk": risk, "online": (), "latency": ("budget_ms",)}[
            self.rule
        ]
        optional = {"risk": ("loss", "tolerance", "bound"), "online": ("cost",), "latency": ("engine",)}
        more = optional.get(self.rule, ())
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"rule {self.rule!r} needs {name}; add it")
        for name, value in self:
            if value is not None and name not in {"rule", *needed, *more}:
                with_bound = " with bound 'crc'" if name == "delta" and self.rule == "risk" else ""
                raise ValueError(f"rule {self.rule!r}{with_bound} has no {name}; take it out")
        if self.loss in GRADED and self.bound in (None, "binomial"):
            raise ValueError(
                f"loss {self.loss!r} is not 0 or 1, which bound 'binomial' needs; set bound: betting or crc"
            )
        return self

    def refuse_task(self, task: str, kind: str) -> None:
        """Raise ParamsError where the chooser has no meaning for a task's kind of answers."""
        regression, key = kind == "regression", "evaluate.choose"
        if self.rule == "risk" and regression and self.tolerance is None:
            raise ParamsError(f"{key}: rule 'risk' needs tolerance for the regression {task!r}; add it")
        if self.loss == "error" and not regression:
            raise ParamsError(f"{key}.loss: 'error' is of a regression, and {task!r} has classes; set gap or brier")
        if regression and (self.rule == "online" or self.loss in OF_PROBABILITIES):
            name, value = ("rule", self.rule) if self.rule == "online" else ("loss", self.loss)
            instead = "window" if name == "rule" else "error"
            raise ParamsError(f"{key}.{name}: {value!r} needs classes, and {task!r} is a regression; set {instead}")


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
