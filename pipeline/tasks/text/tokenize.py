"""Tokens of a task: made once per tokenizer, and written as Arrow files that trials map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.results import Inputs, TokenCounts
from pipeline.tasks.content import data_identity, table_content_hash
from pipeline.tasks.task import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


AT_ONCE = 4096
"""Rows that are tokenized at a time: what the tokenizer says of a row takes some fifty times its tokens' memory."""


def save_tokens(task: Task, tokenizer: "Tokenizer", splits: Mapping[str, pa.Table], folder: Path) -> Inputs:
    """Tokenize all splits, write tokenizer.json and <split>.arrow, and return the manifest's entry.

    The hash covers the data that training uses: tokens and labels of train and selection.
    """
    folder.mkdir(parents=True)
    tokenizer.no_padding()
    tokenizer.enable_truncation(task.max_length)
    tokenizer.save(str(folder / "tokenizer.json"))
    lengths, tables = {}, {}
    for name, table in splits.items():
        texts = [table[column].to_pylist() for column in task.stored_text]
        ids, types = _encoded(tokenizer, texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        columns = {
            "input_ids": ids,
            "token_type_ids": types,
            "label": table["label"].combine_chunks(),
            "row_id": table["row_id"].combine_chunks(),
        }
        out = tables[name] = pa.table(columns)
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, out.schema) as writer:
            writer.write_table(out)
        counts = ids.value_lengths().to_numpy()
        lengths[name] = TokenCounts(mean=round(float(counts.mean()), 3), max=int(counts.max()))
    return Inputs(
        vocabulary=tokenizer.get_vocab_size(),
        tokens=lengths,
        hash=data_identity(tables),
        splits={name: table_content_hash(table) for name, table in tables.items()},
    )


def _encoded(tokenizer: "Tokenizer", rows: Sequence[Any]) -> tuple[pa.Array, pa.Array]:
    """Token and segment ids of texts, or of pairs of texts."""
    ids, types = [], []
    for start in range(0, len(rows), AT_ONCE):
        encoded = tokenizer.encode_batch(rows[start : start + AT_ONCE])
        ids.append(pa.array([e.ids for e in encoded], pa.list_(pa.int32())))
        types.append(pa.array([e.type_ids for e in encoded], pa.list_(pa.int8())))
    return pa.concat_arrays(ids), pa.concat_arrays(types)
