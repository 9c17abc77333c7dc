"""What attack leaves: how each defence did, over examples; beside it, what each part of the work left."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Part, Result
from pipeline.results.numbers import OverExamples
from pipeline.results.point import OperatingPoint


class Record(Part):
    """One attacked example."""

    row_id: int
    """Its row in the set."""
    label: int
    """Its class."""
    outcome: Literal["successful", "failed", "skipped"]
    """skipped: not attacked, for the model was wrong before (goal `slow_down`: ran all layers already); successful: a
    changed text reached the goal; failed: none did."""
    answer_before: int
    """The model's class for the original."""
    answer_after: int | None
    """And for the text that the attack ended with; None if skipped."""
    original: tuple[str, ...]
    """The text, or the pair."""
    changed: tuple[str, ...] | None
    """What the attack ended with, also where it failed; None if skipped."""
    queries: int
    """Texts put to the model, the original included, as the task's `query_rule` counts them."""
    words: int
    """Words of the original."""
    words_changed: int | None
    """Words that differ at the end; None if skipped."""
    layers_before: int
    """Layers the original ran through."""
    layers_under_attack: float | None
    """Mean over the distinct changed texts that the attack asked about; None if it asked none."""
    layers_after: int | None
    """Layers the text ran through that the attack ended with; None if skipped."""


class ShardRecords(Result):
    """`runs/attack/<task>/<key>.json`: some examples against one defence; its name holds all that it hangs on."""

    made_by: ClassVar[str] = "attack"

    defence: str
    """"single exit", or the criterion's name."""
    trial: str
    """Key of the model's trial."""
    point: OperatingPoint
    """How it leaves."""
    records: tuple[Record, ...]
    """The examples, in the shard's order."""


class PoolAnswers(Result):
    """`runs/attack/<task>/pooled/<key>.json`: one defence against the texts with which an attack on any succeeded."""

    made_by: ClassVar[str] = "attack"

    defence: str
    """"single exit", or the criterion's name."""
    trial: str
    """Key of the model's trial."""
    point: OperatingPoint
    """How it leaves."""
    right_on_all: tuple[bool, ...]
    """Of each example, whether the original and every such text are answered with its class."""


class Paired(Part):
    """Two defences on the same examples, by McNemar's exact test."""

    kept: int
    """Examples right after the attack here and not there."""
    lost: int
    """The other way round."""
    p_value: float
    """Of the hypothesis that either is as likely, two-sided."""


class DefenceRow(Part):
    """One model and how it leaves, under attack."""

    defence: str
    """"single exit", or the criterion's name."""
    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    seed: int
    """Of the trial."""
    key: str
    """Of the trial."""
    point: OperatingPoint
    """How it leaves."""
    original_accuracy: OverExamples
    """On the originals, all examples."""
    after_attack_accuracy: OverExamples
    """After its own attack, all examples."""
    pooled_accuracy: OverExamples
    """Right on the original and on every text with which an attack on any defence succeeded; empty for `slow_down`."""
    attack_success_rate: OverExamples
    """Of the examples that were attacked."""
    queries: OverExamples
    """Texts put to the model per attacked example."""
    perturbed_words: OverExamples
    """Words changed by a successful attack."""
    layers_before: OverExamples
    """Layers the original ran through, where the model was right."""
    layers_under_attack: OverExamples
    """Layers of the texts that the attack asked about."""
    layers_after: OverExamples
    """Layers of the text that the attack ended with, where the model was right before."""
    against_first: Paired | None
    """After-attack accuracy against the first row's; None for that row, and for `slow_down`."""


class Attacked(Part):
    """One recipe against a task's defences."""

    recipe: str
    """Name of the published attack."""
    goal: Literal["misclassify", "slow_down"]
    """slow_down: the answer stays and all layers run."""
    attacker: Literal["own", "textattack"]
    """Whose search loop ran; both give the same."""
    max_queries: int | None
    """Of one attack; None: no limit."""
    resources: dict[str, JsonValue]
    """Word vectors, sentence encoder, tagger: which."""
    comparable_with_paper: bool
    """Whether recipe, goal and resources are the paper's."""
    source: str
    """Where the examples come from."""
    examples: int
    """How many."""
    query_rule: str
    """What counts as a query."""
    rows: tuple[DefenceRow, ...]
    """The single exit first."""


class Attack(Result):
    """`outputs/attack/<task>.json`."""

    made_by: ClassVar[str] = "attack"
    task: str
    """The task's name."""
    attacked: Attacked | None
    """None: `attack.tasks` does not name the task."""
