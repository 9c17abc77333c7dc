"""Results of an attack: a record per example, and a row of means per defence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet

from pipeline.attacks.defences import Defence
from pipeline.attacks.examples import Example, Text
from pipeline.evaluation.intervals import mean_interval, proportion_interval, sign_test
from pipeline.results import DefenceRow, Paired, Record
from pipeline.storage import whole_file

HEADLINES = (
    "original_accuracy",
    "after_attack_accuracy",
    "pooled_accuracy",
    "attack_success_rate",
    "queries",
    "layers_before",
    "layers_under_attack",
)
"""The fields of a defence that the stage logs."""
Outcome = Literal["successful", "failed", "skipped"]


def record_of(
    example: Example,
    outcome: Outcome,
    before: tuple[Any, int],
    after: tuple[Any, int],
    *,
    queries: int,
    layers: Mapping[Text, int],
) -> Record:
    """The record of one attack.

    Args:
        before, after: the original and the last text, as `textattack.shared.AttackedText`, each with its answer.
        layers: layers run, by text, for every text put to the model.
    """
    original: Text = before[0].tokenizer_input
    changed: Text = after[0].tokenizer_input
    attacked = outcome != "skipped"
    candidates = [count for text, count in layers.items() if text != original]
    return Record(
        row_id=example.row_id,
        label=example.label,
        outcome=outcome,
        reason=None,
        answer_before=before[1],
        answer_after=after[1] if attacked else None,
        original=(original,) if isinstance(original, str) else tuple(original),
        changed=((changed,) if isinstance(changed, str) else tuple(changed)) if attacked else None,
        queries=queries,
        words=len(before[0].words),
        words_changed=len(before[0].all_words_diff(after[0])) if attacked else None,
        layers_before=layers[original],
        layers_under_attack=sum(candidates) / len(candidates) if attacked and candidates else None,
        layers_after=layers[changed] if attacked else None,
    )


def summarise(
    defence: Defence, records: Sequence[Record], right_on_pool: Sequence[bool], against_first: Paired | None
) -> DefenceRow:
    """Shares and means of one defence, as intervals over examples.

    Accuracies are over all examples. Layers before and after are over the examples that the model had right. The
    success rate and the other means are over the attacked examples (the same ones, unless the goal is to slow the
    model down). Perturbed words are the words that a successful attack changed.

    Args:
        right_on_pool: for each example, whether the model is right on all texts of its pool; empty: no transfer attack.
    """
    right = [r for r in records if r.answer_before == r.label]
    kept = [r for r in records if _kept(r)]
    attacked = [r for r in records if r.outcome != "skipped"]
    won = [r for r in attacked if r.outcome == "successful"]
    after = [r.layers_before if r.layers_after is None else r.layers_after for r in right]
    under = [r.layers_under_attack for r in attacked if r.layers_under_attack is not None]
    return DefenceRow(
        defence=defence.name,
        backbone=defence.backbone,
        method=defence.method,
        seed=defence.seed,
        key=defence.key,
        point=defence.point,
        scores=defence.scores,
        unattacked=sum(r.reason is not None for r in records),
        original_accuracy=proportion_interval(len(right), len(records)),
        after_attack_accuracy=proportion_interval(len(kept), len(records)),
        pooled_accuracy=proportion_interval(sum(right_on_pool), len(right_on_pool)),
        attack_success_rate=proportion_interval(len(won), len(attacked)),
        queries=mean_interval([r.queries for r in attacked]),
        perturbed_words=mean_interval([r.words_changed for r in won if r.words_changed is not None]),
        layers_before=mean_interval([r.layers_before for r in right]),
        layers_under_attack=mean_interval(under),
        layers_after=mean_interval(after),
        against_first=against_first,
    )


def examples_to_show(attacks: Sequence[Sequence[Record]], most: int = 3) -> list[int]:
    """Places of the first examples, in their order, on which an attack on any defence succeeded.

    The examples are drawn at random and their order is that of the split, so the first are no choice of ours.

    Args:
        attacks: each defence's records of the same examples, in the same order.
    """
    broken = [any(record.outcome == "successful" for record in of_all) for of_all in zip(*attacks, strict=True)]
    return [place for place, flag in enumerate(broken) if flag][:most]


def _kept(record: Record) -> bool:
    """Whether the model is right on the original and on the last text of the attack."""
    return record.answer_before == record.label and record.answer_after in (None, record.label)


def paired(records: Sequence[Record], base: Sequence[Record]) -> Paired:
    """After-attack accuracy of one defence against another's on the same examples, by McNemar's exact test.

    The test uses the pairs, so it may tell two accuracies apart whose intervals overlap.
    """
    outcomes = [(_kept(record), _kept(other)) for record, other in zip(records, base, strict=True)]
    kept = sum(right and not other for right, other in outcomes)
    lost = sum(other and not right for right, other in outcomes)
    return Paired(kept=kept, lost=lost, p_value=sign_test(kept, lost))


_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("defence", pa.string()),
        ("backbone", pa.string()),
        ("method", pa.string()),
        ("scores", pa.string()),
        ("criterion", pa.string()),
        ("threshold", pa.float64()),
        ("key", pa.string()),
        ("seed", pa.int64()),
        ("row_id", pa.int64()),
        ("label", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("answer_before", pa.int64()),
        ("answer_after", pa.int64()),
        ("original", pa.list_(pa.string())),
        ("changed", pa.list_(pa.string())),
        ("queries", pa.int64()),
        ("words", pa.int64()),
        ("words_changed", pa.int64()),
        ("layers_before", pa.int64()),
        ("layers_under_attack", pa.float64()),
        ("layers_after", pa.int64()),
    ]
)


def save_records(path: Path, attacked: Mapping[str, Sequence[tuple[Defence, Sequence[Record]]]]) -> Path:
    """Write every attacked example of every split and defence as Parquet, one row each; whole or not at all."""
    rows = [
        {"split": split, **defence.columns(), **record.model_dump()}
        for split, attacks in attacked.items()
        for defence, records in attacks
        for record in records
    ]
    with whole_file(path) as partial:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial)
    return path
