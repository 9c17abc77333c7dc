"""Making tokens: once per task and tokenizer, written as Arrow for pipeline.tasks.text.tokens to map."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.errors import DataError, ParamsError
from pipeline.models.names import DEMO_POSITIONS, BackboneSpec, first_position, hub_path
from pipeline.storage import file_hash
from pipeline.tasks.hub import prepare_for
from pipeline.tasks.task import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def save_tokens(
    task: Task, spec: BackboneSpec, splits: Mapping[str, pa.Table], folder: Path, mirror: Path | None
) -> dict[str, Any]:
    """Tokenize all splits; write tokenizer.json and <split>.arrow; return the manifest's entry.

    Its `hash` covers what training sees: tokens and labels of train and selection, not of report.

    Raises:
        DataError: no tokenizer or no configuration of that name.
        ParamsError: the task's inputs may be longer than the backbone takes.
    """
    folder.mkdir(parents=True)
    tokenizer = _make_tokenizer(spec, mirror)
    longest = _positions(spec, mirror)
    if longest is not None and task.max_length > longest:
        raise ParamsError(
            f"tasks.{task.name}.max_length: {task.max_length} tokens are more than backbones.{spec.name} takes "
            f"({longest}); lower it to {longest}, or take another backbone"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(task.max_length)
    tokenizer.save(str(folder / "tokenizer.json"))
    lengths = {}
    for name, table in splits.items():
        texts = [table[column].to_pylist() for column in task.text]
        encoded = tokenizer.encode_batch(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        columns = {
            "input_ids": pa.array([e.ids for e in encoded], pa.list_(pa.int32())),
            "token_type_ids": pa.array([e.type_ids for e in encoded], pa.list_(pa.int8())),
            "label": table["label"].combine_chunks(),
            "row_id": table["row_id"].combine_chunks(),
        }
        out = pa.table(columns)
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, pa.ipc.new_file(sink, out.schema) as writer:
            writer.write_table(out)
        counts = np.array([len(e.ids) for e in encoded])
        lengths[name] = {"mean": round(float(counts.mean()), 3), "max": int(counts.max())}
    return {
        "vocabulary": tokenizer.get_vocab_size(),
        "tokens": lengths,
        "hash": file_hash(folder / "train.arrow", folder / "selection.arrow"),
    }


def _make_tokenizer(spec: BackboneSpec, mirror: Path | None) -> "Tokenizer":
    if spec.hub is None:
        return _word_tokenizer()
    where = hub_path(spec.hub, mirror)
    prepare_for(where)
    from transformers import AutoTokenizer

    try:
        fast = AutoTokenizer.from_pretrained(where, use_fast=True)
    except Exception as error:  # a missing file is an OSError, ValueError, KeyError or TypeError, as the model has it
        raise _not_to_be_had(spec, "tokenizer", error) from None
    backend: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"backbones.{spec.name}: {spec.hub!r} has a {type(fast).__name__} only, which has no fast tokenizer; "
            "take a model with one, or put its tokenizer.json beside it"
        )
    return backend


def _positions(spec: BackboneSpec, mirror: Path | None) -> int | None:
    """Tokens of the longest input that a backbone takes; None where its configuration does not say."""
    if spec.hub is None:
        return DEMO_POSITIONS
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(hub_path(spec.hub, mirror))
        positions = getattr(config, "max_position_embeddings", None)
        return None if positions is None else int(positions) - first_position(config)
    except Exception as error:  # a config.json can be wrong in a dozen ways, each with a kind of its own
        raise _not_to_be_had(spec, "configuration", error) from None


def _not_to_be_had(spec: BackboneSpec, what: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(
        f"backbones.{spec.name}: no {what} for {spec.hub!r} ({reason}); check the name and the network, "
        "or name a mirror on disk with HUB_MIRROR"
    )


def _word_tokenizer() -> "Tokenizer":
    """One token per word over the demo's vocabulary, framed as BERT frames its input."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from pipeline.tasks.demo.text import vocabulary

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))],
    )
    return tokenizer
