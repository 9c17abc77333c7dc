"""The tokenizer of an encoder, and the longest input that the encoder takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, ParamsError
from pipeline.models.encoders.config import not_to_be_had, read_config
from pipeline.models.names import DEMO_POSITIONS, BackboneSpec, first_position, hub_path
from pipeline.tasks.task import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokenizer_of(spec: BackboneSpec, task: Task, mirror: Path | None) -> "Tokenizer":
    """The tokenizer of a backbone, for a task's texts.

    Raises:
        DataError: no tokenizer or no configuration of that name, or two that do not belong together.
        ParamsError: the task's `max_length` is more than the backbone takes, or leaves no room for a text; or as
            `read_config`.
    """
    config = read_config(spec, mirror) if spec.hub else None
    longest = config.max_position_embeddings - first_position(config) if config else DEMO_POSITIONS
    if task.max_length > longest:
        raise ParamsError(
            f"tasks.{task.name}.max_length: {task.max_length} tokens are more than backbones.{spec.name} takes "
            f"({longest}); lower it to {longest}, or take another backbone"
        )
    tokenizer = _word_tokenizer() if config is None else _pretrained(spec, mirror, config)
    needed = tokenizer.num_special_tokens_to_add(is_pair=len(task.text) == 2) + len(task.text)
    if task.max_length < needed:
        raise ParamsError(
            f"tasks.{task.name}.max_length: {task.max_length} leaves no room for a text beside the special tokens; "
            f"give {needed} or more"
        )
    return tokenizer


def _pretrained(spec: BackboneSpec, mirror: Path | None, config: Any) -> "Tokenizer":
    """A backbone's own tokenizer.

    Args:
        config: the encoder's configuration, which tells the tokenizer's class where no file of the tokenizer does.
    """
    assert spec.hub is not None
    from transformers import AutoTokenizer

    try:
        where = hub_path(spec.hub, mirror)
        fast = AutoTokenizer.from_pretrained(where, config=config, use_fast=True, trust_remote_code=False)
    except Exception as error:  # a missing file raises OSError, ValueError, KeyError or TypeError
        raise not_to_be_had(spec, "tokenizer", error) from None
    backend: Tokenizer | None = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"backbones.{spec.name}: {spec.hub!r} has a {type(fast).__name__} only, which has no fast tokenizer; "
            "take a model with one, or put its tokenizer.json beside it"
        )
    largest = max(backend.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= config.vocab_size:
        raise DataError(
            f"backbones.{spec.name}: the tokenizer of {spec.hub!r} has ids up to {largest}, and its config.json a "
            f"vocabulary of {config.vocab_size}; take a tokenizer and a model that belong together"
        )
    return backend


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
