"""What an attack leaves behind: one record per example, and one row of means per defence."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet

from pipeline.attacks.defences import Defence
from pipeline.intervals import mean_interval, proportion_interval

HEADLINES = (
    "original_accuracy",
    "after_attack_accuracy",
    "attack_success_rate",
    "queries",
    "layers_before",
    "layers_under_attack",
)
"""What a stage logs of each defence."""
Outcome = Literal["successful", "failed", "skipped"]


@dataclass(frozen=True)
class Record:
    """One attacked example.

    Attributes:
        row_id: its row in the set.
        label: its class.
        outcome: skipped: the model was wrong before any attack; successful: a changed text made it wrong;
            failed: it stayed right.
        answer_before, answer_after: the model's class for the original, and for the text that the attack ended with.
        original, changed: the texts, (1 or 2,); `changed` is what the attack ended with, also where it failed.
        queries: texts put to the model, the original included (`textfooler.QUERY_RULE`).
        words, words_changed: words of the original, and how many of them differ at the end.
        layers_before: layers the original went through.
        layers_under_attack: mean over the distinct changed texts that the attack asked about; None if it asked none.
        layers_after: layers the text that the attack ended with went through.

    All but row_id, label, outcome, answer_before, original, queries (1), words and layers_before are None if skipped.
    """

    row_id: int
    label: int
    outcome: Outcome
    answer_before: int
    answer_after: int | None
    original: tuple[str, ...]
    changed: tuple[str, ...] | None
    queries: int
    words: int
    words_changed: int | None
    layers_before: int
    layers_under_attack: float | None
    layers_after: int | None


def summarise(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Shares and means of one defence, as intervals over examples.

    Accuracies are over all examples, the success rate and the means over those that were attacked (not skipped);
    perturbed words are the words changed by a successful attack.
    """
    attacked = [r for r in records if r.outcome != "skipped"]
    won = [r for r in attacked if r.outcome == "successful"]
    under = [r.layers_under_attack for r in attacked if r.layers_under_attack is not None]
    return {
        "original_accuracy": proportion_interval(len(attacked), len(records)),
        "after_attack_accuracy": proportion_interval(len(attacked) - len(won), len(records)),
        "attack_success_rate": proportion_interval(len(won), len(attacked)),
        "queries": mean_interval([r.queries for r in attacked]),
        "perturbed_words": mean_interval([r.words_changed for r in won if r.words_changed is not None]),
        "layers_before": mean_interval([r.layers_before for r in attacked]),
        "layers_under_attack": mean_interval(under),
        "layers_after": mean_interval([r.layers_after for r in attacked if r.layers_after is not None]),
    }


_SCHEMA = pa.schema(
    [
        ("defence", pa.string()),
        ("backbone", pa.string()),
        ("method", pa.string()),
        ("criterion", pa.string()),
        ("threshold", pa.float64()),
        ("key", pa.string()),
        ("seed", pa.int64()),
        ("row_id", pa.int64()),
        ("label", pa.int64()),
        ("outcome", pa.string()),
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


def save_records(path: Path, attacked: Sequence[tuple[Defence, Sequence[Record]]]) -> Path:
    """Write every attacked example of every defence as Parquet, one row each; whole or not at all."""
    rows = [{**defence.labels(), **asdict(record)} for defence, records in attacked for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial)
    os.replace(partial, path)
    return path
