"""What is attacked and with what: blocks of params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.errors import ParamsError, unknown
from pipeline.evaluation.criteria import CRITERIA
from pipeline.settings import Block, Count, PositiveInt
from pipeline.tasks.task import HubSource


class AttackResources(Block):
    """Local resources of a recipe; all None fetches the stock ones (network needed)."""

    nltk_data: Path | None = None
    word_vectors: Path | None = None
    sentence_encoder: Path | None = None
    masked_lm: Path | None = None
    """Folder of a masked language model; BAE's."""
    sentence_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest cosine between original and changed window; None: the recipe's own (TextFooler: 0.8776)."""


class AttackTask(Block):
    """What to attack a task's models with: a data set of its own (a hub name), or the task's report split."""

    examples: PositiveInt
    source: HubSource | None = None
    text: list[str] | None = None
    """The set's text columns, where it names them otherwise than the task."""

    @model_validator(mode="after")
    def _of_source(self) -> "AttackTask":
        if self.text is not None and self.source is None:
            raise ValueError("text names columns of source, which is not there; add source, or take text out")
        return self


class Attack(Block):
    """A published attack on the live model at the operating points that evaluate chose."""

    tasks: dict[str, AttackTask] = {}
    recipe: Literal["textfooler", "pwws", "textbugger", "deepwordbug", "bae"] = "textfooler"
    goal: Literal["misclassify", "slow_down"] = "misclassify"
    """slow_down: make it run through all layers, its answer unchanged."""
    attacker: Literal["own", "textattack"] = "own"
    """textattack: the reference, whose outcomes, queries and texts ours equals, slower."""
    criteria: list[str] = ["confidence", "entropy", "patience"]
    single_exit: str = "single_exit"
    multi_exit: str = "joint"
    resources: AttackResources | Literal["stock", "demo"] = "stock"
    seed: Count = 0
    max_queries: PositiveInt | None = None

    @field_validator("criteria")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in CRITERIA:
                raise unknown("criterion", name, CRITERIA, key="attack.criteria")
            if not CRITERIA[name].causal:
                raise ParamsError(f"attack.criteria: {name!r} is a bound for replay, no model runs it; take it out")
        return value
