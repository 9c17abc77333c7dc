"""Results of attack: means of each defence over examples, and the records of each shard."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import JsonValue

from pipeline.results.base import Amount, Count, Fraction, Name, Natural, Part, Result, Seed, Text, refuse_repeats
from pipeline.results.numbers import OverExamples
from pipeline.results.point import OperatingPoint


class Record(Part):
    """One attacked example."""

    row_id: Count
    """Its row in the attack set or split."""
    label: Count
    """Its class."""
    outcome: Literal["successful", "failed", "skipped"]
    """successful: a changed text reached the goal. failed: none did. skipped: not attacked, since the model was wrong
    on the original (goal `slow_down`: or ran all layers on it), or for `reason`."""
    reason: str | None
    """Why the text could not be attacked, in one line; None for any other example."""
    answer_before: Count
    """The model's answer to the original, a class."""
    answer_after: Count | None
    """Its answer to the last text of the attack; None if skipped."""
    original: tuple[str, ...]
    """The original text, or pair of texts."""
    changed: tuple[str, ...] | None
    """The last text of the attack, also where it failed; None if skipped."""
    queries: Count
    """Number of queries to the model, counted as `query_rule` says."""
    words: Count
    """Number of words of the original."""
    words_changed: Count | None
    """Number of words that differ in the last text; None if skipped."""
    layers_before: Natural
    """Layers that the defence runs for the original."""
    layers_under_attack: Amount | None
    """Layers that the defence runs, mean over the distinct changed texts; None if there are none."""
    layers_after: Natural | None
    """Layers that the defence runs for the last text; None if skipped."""

    def check(self) -> None:
        skipped = self.outcome == "skipped"
        for name in ("answer_after", "changed", "words_changed", "layers_after"):
            if (getattr(self, name) is None) != skipped:
                raise ValueError(f"{name} does not go with outcome {self.outcome!r}")
        if not self.original or (self.changed is not None and len(self.changed) != len(self.original)):
            raise ValueError("original and changed are not one text each, or a pair each")


class ShardRecords(Result):
    """`runs/attack/<task>/<key>.json`: some examples attacked against one defence. The key is a hash of all inputs."""

    schema_version: ClassVar[int] = 3
    """Version 2 had no reasons: a text that could not be attacked ended the stage."""
    made_by: ClassVar[str] = "attack"

    defence: Text
    """"single exit", or the criterion's name."""
    trial: Name
    """Key of the model's trial."""
    point: OperatingPoint
    """Its operating point."""
    records: tuple[Record, ...]
    """The examples, in the shard's order."""


class PoolAnswers(Result):
    """`runs/attack/<task>/pooled/<key>.json`: one defence under the transfer attack."""

    made_by: ClassVar[str] = "attack"

    defence: Text
    """"single exit", or the criterion's name."""
    trial: Name
    """Key of the model's trial."""
    point: OperatingPoint
    """Its operating point."""
    right_on_all: tuple[bool, ...]
    """For each example, whether the original and every such text are answered with its class."""


class Paired(Part):
    """Two defences on the same examples, by McNemar's exact test."""

    kept: Count
    """Examples that this defence has right after its attack and the other has not."""
    lost: Count
    """Examples that the other defence has right and this one has not."""
    p_value: Fraction
    """Two-sided p-value of equal probabilities."""


class DefenceRow(Part):
    """One defence under attack: a model at an operating point."""

    defence: Text
    """"single exit", or the criterion's name; with ", adaptive" where `scores` is deepest."""
    scores: Literal["answered", "deepest"]
    """The exit whose probabilities the search followed. answered: the one that answered. deepest: an adaptive attack,
    of one who has the weights; the attacker runs all layers for each query, and success is still judged by the exit
    that answers."""
    backbone: Name
    """Name in `backbones`."""
    method: Text
    """Name in `methods`."""
    seed: Seed
    """Seed of the trial."""
    key: Name
    """Key of the trial."""
    point: OperatingPoint
    """Its operating point."""
    unattacked: Count
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
    """Layers that the defence runs for the changed texts of an attack."""
    layers_after: OverExamples
    """Layers run for the last text, where the model was right on the original."""
    against_first: Paired | None
    """After-attack accuracy against the first row's; None for that row, and for `slow_down`."""
    shown: tuple[Record, ...] = ()
    """The first few examples, by `row_id`, on which an attack on any row succeeded; the same examples in every row."""

    def check(self) -> None:
        for name in ("original_accuracy", "after_attack_accuracy", "pooled_accuracy", "attack_success_rate"):
            value = getattr(self, name).value
            if value is not None and value > 1:
                raise ValueError(f"{name} {value} is above 1")


class Attacked(Part):
    """One recipe against a task's defences, on the examples of one split."""

    split: Name
    """Report split of the task, or of its attack set; MNLI has two."""
    recipe: Text
    """Name of the attack recipe."""
    goal: Literal["misclassify", "slow_down"]
    """misclassify: change the answer. slow_down: make the model run all layers with the same answer."""
    attacker: Literal["own", "textattack"]
    """The search loop: this project's or TextAttack's, with the same results."""
    engine: Literal["pytorch", "onnx-float32"]
    """What the models under attack and a local sentence encoder ran in."""
    max_queries: Natural | None
    """Limit of queries per example; None: no limit."""
    resources: dict[str, JsonValue]
    """Origin of word vectors, sentence encoder, tagger and the like."""
    comparable_with_paper: bool
    """Whether recipe, goal and resources are the paper's."""
    source: Text
    """Source of the examples."""
    examples: Natural
    """Number of examples."""
    query_rule: Text
    """Rule by which queries are counted."""
    label_names: tuple[str, ...]
    """The task's classes in their order."""
    rows: tuple[DefenceRow, ...]
    """A row per defence, the single exit first."""
    files: dict[str, str] = {}
    """SHA-256 of each local file that it was made with, by its role: the resource's name, or examples/...."""

    def check(self) -> None:
        if not self.rows:
            raise ValueError("rows: there is none")
        refuse_repeats("rows", (row.defence for row in self.rows))
        for i, row in enumerate(self.rows):
            if [record.row_id for record in row.shown] != [record.row_id for record in self.rows[0].shown]:
                raise ValueError(f"rows of {row.defence}: shown are other examples than those of the first row")
            if any(max(r.label, r.answer_before, r.answer_after or 0) >= len(self.label_names) for r in row.shown):
                raise ValueError(f"rows of {row.defence}: shown has a class beyond label_names")
            if row.original_accuracy.n != self.examples or row.after_attack_accuracy.n != self.examples:
                raise ValueError(f"rows of {row.defence}: accuracies are not over {self.examples} examples")
            if (row.against_first is None) != (i == 0 or self.goal == "slow_down"):
                raise ValueError(f"rows of {row.defence}: against_first does not go with its place and goal")


def _without_scores(payload: Any) -> None:
    for attacked in payload["attacked"]:
        for row in attacked["rows"]:
            row["scores"] = "answered"


def _without_engine(payload: Any) -> None:
    for attacked in payload["attacked"]:
        attacked["engine"] = "pytorch"


class Attack(Result):
    """`outputs/attack/<task>.json`."""

    schema_version: ClassVar[int] = 6
    """Version 3 had no examples of changed texts. Still read: 4 had no `scores` (answered), 5 no `engine` (pytorch)."""
    older: ClassVar[Mapping[int, Callable[[Any], None]]] = {4: _without_scores, 5: _without_engine}
    made_by: ClassVar[str] = "attack"
    task: Name
    """The task's name."""
    attacked: tuple[Attacked, ...]
    """One per split, in the task's order; empty: `attack.tasks` does not name the task."""

    def check(self) -> None:
        refuse_repeats("attacked", (one.split for one in self.attacked))
