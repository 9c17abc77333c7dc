"""The tokenizer of an encoder, and the longest input that the encoder takes."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DataError, ParamsError
from pipeline.models.names import DEMO_POSITIONS, BackboneSpec, first_position, hub_path
from pipeline.tasks.hub import prepare_for
from pipeline.tasks.task import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokenizer_of(spec: BackboneSpec, task: Task, mirror: Path | None) -> "Tokenizer":
    """The tokenizer of a backbone, for a task's texts.

    Raises:
        DataError: no tokenizer or no configuration of that name.
        ParamsError: the task's `max_length` is more than the backbone takes, or leaves no room for a text.
    """
    longest = _positions(spec, mirror)
    if longest is not None and task.max_length > longest:
        raise ParamsError(
            f"tasks.{task.name}.max_length: {task.max_length} tokens are more than backbones.{spec.name} takes "
            f"({longest}); lower it to {longest}, or take another backbone"
        )
    tokenizer = _make_tokenizer(spec, mirror)
    needed = tokenizer.num_special_tokens_to_add(is_pair=len(task.text) == 2) + len(task.text)
    if task.max_length < needed:
        raise ParamsError(
            f"tasks.{task.name}.max_length: {task.max_length} leaves no room for a text beside the special tokens; "
            f"give {needed} or more"
        )
    return tokenizer


def _make_tokenizer(spec: BackboneSpec, mirror: Path | None) -> "Tokenizer":
    if spec.hub is None:
        return _word_tokenizer()
    where = hub_path(spec.hub, mirror)
    prepare_for(where)
    from transformers import AutoTokenizer

    try:
        fast = AutoTokenizer.from_pretrained(where, use_fast=True)
    except Exception as error:  # a missing file raises OSError, ValueError, KeyError or TypeError
        raise _not_to_be_had(spec, "tokenizer", error) from None
    backend: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"backbones.{spec.name}: {spec.hub!r} has a {type(fast).__name__} only, which has no fast tokenizer; "
            "take a model with one, or put its tokenizer.json beside it"
        )
    return backend


def _positions(spec: BackboneSpec, mirror: Path | None) -> int | None:
    """Longest input of a backbone, in tokens; None where its configuration has no limit."""
    if spec.hub is None:
        return DEMO_POSITIONS
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(hub_path(spec.hub, mirror))
        positions = getattr(config, "max_position_embeddings", None)
        return None if positions is None else int(positions) - first_position(config)
    except Exception as error:  # a wrong config.json raises many kinds
        raise _not_to_be_had(spec, "configuration", error) from None


def _not_to_be_had(spec: BackboneSpec, what: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(
        f"backbones.{spec.name}: no {what} for {spec.hub!r} ({reason}); check the name and the network, "
        "or name a mirror on disk with HUB_MIRROR"
    )


def _word_tokenizer() -> "Tokenizer":
    """A tokenizer of the demo's words, one token each, with BERT's special tokens."""
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
