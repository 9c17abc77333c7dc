"""Results of attack: means of each defence over examples, and the records of each shard."""

from typing import ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Part, Result
from pipeline.results.numbers import OverExamples
from pipeline.results.point import OperatingPoint


class Record(Part):
    """One attacked example."""

    row_id: int
    """Its row in the attack set or split."""
    label: int
    """Its class."""
    outcome: Literal["successful", "failed", "skipped"]
    """successful: a changed text reached the goal. failed: none did. skipped: not attacked, since the model was wrong
    on the original (goal `slow_down`: or ran all layers on it), or for `reason`."""
    reason: str | None
    """Why the text could not be attacked, in one line; None for any other example."""
    answer_before: int
    """The model's answer to the original, a class."""
    answer_after: int | None
    """Its answer to the last text of the attack; None if skipped."""
    original: tuple[str, ...]
    """The original text, or pair of texts."""
    changed: tuple[str, ...] | None
    """The last text of the attack, also where it failed; None if skipped."""
    queries: int
    """Number of queries to the model, counted as `query_rule` says."""
    words: int
    """Number of words of the original."""
    words_changed: int | None
    """Number of words that differ in the last text; None if skipped."""
    layers_before: int
    """Layers run for the original."""
    layers_under_attack: float | None
    """Layers run, mean over the distinct changed texts; None if there are none."""
    layers_after: int | None
    """Layers run for the last text; None if skipped."""


class ShardRecords(Result):
    """`runs/attack/<task>/<key>.json`: some examples attacked against one defence. The key is a hash of all inputs."""

    schema_version: ClassVar[int] = 3
    """Version 2 had no reasons: a text that could not be attacked ended the stage."""
    made_by: ClassVar[str] = "attack"

    defence: str
    """"single exit", or the criterion's name."""
    trial: str
    """Key of the model's trial."""
    point: OperatingPoint
    """Its operating point."""
    records: tuple[Record, ...]
    """The examples, in the shard's order."""


class PoolAnswers(Result):
    """`runs/attack/<task>/pooled/<key>.json`: one defence under the transfer attack."""

    made_by: ClassVar[str] = "attack"

    defence: str
    """"single exit", or the criterion's name."""
    trial: str
    """Key of the model's trial."""
    point: OperatingPoint
    """Its operating point."""
    right_on_all: tuple[bool, ...]
    """For each example, whether the original and every such text are answered with its class."""


class Paired(Part):
    """Two defences on the same examples, by McNemar's exact test."""

    kept: int
    """Examples that this defence has right after its attack and the other has not."""
    lost: int
    """Examples that the other defence has right and this one has not."""
    p_value: float
    """Two-sided p-value of equal probabilities."""


class DefenceRow(Part):
    """One defence under attack: a model at an operating point."""

    defence: str
    """"single exit", or the criterion's name."""
    backbone: str
    """Name in `backbones`."""
    method: str
    """Name in `methods`."""
    seed: int
    """Seed of the trial."""
    key: str
    """Key of the trial."""
    point: OperatingPoint
    """Its operating point."""
    unattacked: int
    """Number of examples whose text could not be attacked. They count like texts on which the attack failed."""
    original_accuracy: OverExamples
    """Accuracy on the original texts of all examples."""
    after_attack_accuracy: OverExamples
    """Accuracy after the attack on this defence, all examples."""
    pooled_accuracy: OverExamples
    """Accuracy under the transfer attack: right on the original and on every text that broke any defence; empty for
    `slow_down`."""
    attack_success_rate: OverExamples
    """Share of the attacked examples with a successful attack."""
    queries: OverExamples
    """Queries per attacked example."""
    perturbed_words: OverExamples
    """Words that a successful attack changed."""
    layers_before: OverExamples
    """Layers run for the original, where the model was right."""
    layers_under_attack: OverExamples
    """Layers run for the changed texts of an attack."""
    layers_after: OverExamples
    """Layers run for the last text, where the model was right on the original."""
    against_first: Paired | None
    """After-attack accuracy against the first row's; None for that row, and for `slow_down`."""


class Attacked(Part):
    """One recipe against a task's defences."""

    recipe: str
    """Name of the attack recipe."""
    goal: Literal["misclassify", "slow_down"]
    """misclassify: change the answer. slow_down: make the model run all layers with the same answer."""
    attacker: Literal["own", "textattack"]
    """The search loop: this project's or TextAttack's, with the same results."""
    max_queries: int | None
    """Limit of queries per example; None: no limit."""
    resources: dict[str, JsonValue]
    """Origin of word vectors, sentence encoder, tagger and the like."""
    comparable_with_paper: bool
    """Whether recipe, goal and resources are the paper's."""
    source: str
    """Source of the examples."""
    examples: int
    """Number of examples."""
    query_rule: str
    """Rule by which queries are counted."""
    rows: tuple[DefenceRow, ...]
    """A row per defence, the single exit first."""


class Attack(Result):
    """`outputs/attack/<task>.json`."""

    schema_version: ClassVar[int] = 3
    """Version 2 did not count examples that could not be attacked."""
    made_by: ClassVar[str] = "attack"
    task: str
    """The task's name."""
    attacked: Attacked | None
    """None: `attack.tasks` does not name the task."""
