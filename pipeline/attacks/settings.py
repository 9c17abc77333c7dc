"""The block `attack` of params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.attacks.setting import Engine, Scores
from pipeline.errors import ParamsError, UnsupportedError, unknown
from pipeline.evaluation.criteria import CRITERIA
from pipeline.settings import Block, Distinct, PositiveInt, Seed
from pipeline.tasks.task import HubSource, Task

NEEDS = {
    "textfooler": ("word_vectors", "sentence_encoder", "tagger"),
    "pwws": ("stop_words", "wordnet"),
    "textbugger": ("word_vectors", "sentence_encoder", "stop_words"),
    "deepwordbug": ("stop_words",),
    "bae": ("masked_lm", "sentence_encoder", "tagger", "stop_words"),
}
"""Recipe to the resources that it needs; tagger, stop_words and wordnet come from the NLTK folder."""


class AttackResources(Block):
    """Local resources of a recipe. None takes the stock one, which needs the network."""

    nltk_data: Path | None = None
    word_vectors: Path | None = None
    sentence_encoder: Path | None = None
    masked_lm: Path | None = None
    """Folder of a masked language model, for the recipe bae."""
    sentence_threshold: Annotated[float, Field(ge=-1, le=1, strict=True)] | None = None
    """Smallest cosine between original and changed window; None: the recipe's own (TextFooler: 0.8776)."""


class AttackTask(Block):
    """The examples to attack a task's models with: an attack set of the hub, or the task's report split."""

    examples: PositiveInt
    source: HubSource | None = None
    text: Annotated[list[str], Distinct] | None = None
    """The attack set's text columns, where their names differ from the task's."""

    @model_validator(mode="after")
    def _check_text(self) -> "AttackTask":
        if self.text is not None and self.source is None:
            raise ValueError("text names columns of a source, and there is none; add source, or take text out")
        return self


class Attack(Block):
    """A published attack on the live model at the operating points that evaluate chose."""

    tasks: dict[str, AttackTask] = {}
    recipe: Literal["textfooler", "pwws", "textbugger", "deepwordbug", "bae"] = "textfooler"
    goal: Literal["misclassify", "slow_down"] = "misclassify"
    """misclassify: change the answer. slow_down: make the model run all layers, with its answer unchanged."""
    attacker: Literal["own", "textattack"] = "own"
    """own: this project's search loop. textattack: TextAttack's loop, slower, with the same outcomes and queries."""
    engine: Engine = "pytorch"
    """What the models under attack and a local sentence encoder run in. onnx-float32: ONNX Runtime, on the CPU; answers
    differ from PyTorch's by rounding, and the first use of a model takes some 20 s to make its graphs."""
    scores: Annotated[list[Scores], Distinct, Field(min_length=1)] = ["answered"]
    """The exit whose probabilities the search follows; success is always judged by the exit that answered. answered:
    that exit. deepest: the adaptive attack of one who has the weights and runs all layers. Both: a row for each."""
    criteria: Annotated[list[str], Distinct] = ["confidence", "entropy", "patience"]
    single_exit: str = "single_exit"
    multi_exit: str = "joint"
    resources: AttackResources | Literal["stock", "demo"] = "stock"
    seed: Seed = 0
    max_queries: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_demo(self) -> "Attack":
        """The demo's resources are word vectors and an encoder made of them."""
        lacking = [need for need in NEEDS[self.recipe] if need in ("wordnet", "masked_lm")]
        if self.tasks and self.resources == "demo" and lacking:
            raise ParamsError(
                f"attack.resources: 'demo' has no {lacking[0]}, which recipe {self.recipe!r} needs; name local "
                "resources, or take textfooler"
            )
        return self

    @model_validator(mode="after")
    def _check_scores(self) -> "Attack":
        if "deepest" in self.scores and self.goal != "misclassify":
            raise ParamsError(
                f"attack.scores: 'deepest' does not go with goal {self.goal!r}, which counts layers; take it out"
            )
        if "deepest" in self.scores and self.attacker != "own":
            raise ParamsError(
                "attack.scores: 'deepest' needs attacker 'own', since TextAttack's loop overlooks a text that reaches "
                "the goal without the best score; take it out, or set attack.attacker to own"
            )
        return self

    @field_validator("criteria")
    @classmethod
    def _check_criteria(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in CRITERIA:
                raise unknown("criterion", name, CRITERIA, key="attack.criteria")
            if not CRITERIA[name].causal:
                raise ParamsError(f"attack.criteria: {name!r} is a bound that only replay can compute; take it out")
        return value


def refuse_task(task: Task) -> None:
    """Raise UnsupportedError for a task whose rows no recipe can attack."""
    if task.kind == "regression":
        raise UnsupportedError(f"attack.tasks: {task.name!r} is a regression, attacks need classes; take it out")
    if task.modality != "text":
        raise UnsupportedError(f"attack.tasks: {task.name!r} has images, attacks change words; take it out")
