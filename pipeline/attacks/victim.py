"""The model under attack: texts in, logits out, and what each text cost in layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.attacks.examples import Text
from pipeline.models.live import LiveEngine
from pipeline.tasks.text.tokens import collate, in_buckets

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""A text as the model reads it: token ids and segment ids."""


@dataclass
class Memo:
    """What one example's attack has asked so far.

    Attributes:
        answers: each token row answered: its logits (outputs,), and the layers it went through, counted from 1.
        layers: those layers by text, in the order of asking. A text asked twice is there once.
    """

    answers: dict[Row, tuple[Tensor, int]] = field(default_factory=dict)
    layers: dict[Text, int] = field(default_factory=dict)


class Victim:
    """What TextAttack calls a model wrapper, over the live engine: a list of texts to logits.

    Texts are padded to the longest of a batch of like length, not to the tokenizer's maximum. Every row leaves on its
    own account, so an answer does not depend on what else is in the list (up to the rounding of a batched product).
    Texts of the same tokens are one row, asked once per memo: two unknown words in the same place are a tie, not two
    answers that differ in the last bit. No base class of TextAttack's is needed, so this module imports without it.

    Args:
        engine: the model with its exit rule.
        tokenizer: truncates as the model's training tokens were; does not pad.
        device: the engine's.
        batch_size: rows per forward pass.

    Attributes:
        model: TextAttack looks at its class.
        memo: of calls through TextAttack, since `forget`.
    """

    def __init__(self, engine: LiveEngine, tokenizer: "Tokenizer", device: str, batch_size: int = BATCH) -> None:
        self.engine, self.tokenizer, self.device, self.batch_size = engine, tokenizer, device, batch_size
        self.model = engine.model
        self.memo = Memo()

    def forget(self) -> None:
        """Start a new memo."""
        self.memo = Memo()

    def __call__(self, texts: Sequence[str | tuple[str, ...] | Mapping[str, str]]) -> Tensor:
        """Answer texts; a pair is a tuple or mapping of two.

        Returns:
            Logits of the exit that answered each row, (n, outputs), float32 on the CPU. Not probabilities: TextAttack
            applies a softmax to rows that do not sum to 1.

        Raises:
            InvalidLogitsError: the model answered NaN.
        """
        plain: list[Text] = [tuple(text.values()) if isinstance(text, Mapping) else text for text in texts]
        return self.ask([(self.memo, plain)])[0]

    def ask(self, questions: Sequence[tuple[Memo, Sequence[Text]]]) -> list[Tensor]:
        """Answer several lists of texts, each with its own memo, in shared batches."""
        texts = [text for _, asked in questions for text in asked]
        rows = iter(self._rows(texts))
        asked_rows = [[next(rows) for _ in asked] for _, asked in questions]
        unknown = (
            r for (memo, _), asked in zip(questions, asked_rows, strict=True) for r in asked if r not in memo.answers
        )
        found = self._answer(list(dict.fromkeys(unknown)))
        out = []
        for (memo, asked), own in zip(questions, asked_rows, strict=True):
            logits = torch.empty((len(own), self.model.outputs), dtype=torch.float32)
            for i, (text, row) in enumerate(zip(asked, own, strict=True)):
                if row not in memo.answers:
                    memo.answers[row] = found[row]
                logits[i], memo.layers[text] = memo.answers[row]
            out.append(logits)
        return out

    def _rows(self, texts: Sequence[Text]) -> Iterable[Row]:
        encoded: list[Any] = self.tokenizer.encode_batch(list(texts)) if texts else []
        return ((tuple(e.ids), tuple(e.type_ids)) for e in encoded)

    def _answer(self, rows: Sequence[Row]) -> dict[Row, tuple[Tensor, int]]:
        found: dict[Row, tuple[Tensor, int]] = {}
        for part in in_buckets(np.array([len(ids) for ids, _ in rows]), self.batch_size):
            batch = collate([rows[i][0] for i in part], [rows[i][1] for i in part], self.device)
            answers = self.engine(batch)
            layers = [self.model.exits[index] for index in answers.exit_index.tolist()]
            found |= zip((rows[i] for i in part), zip(answers.logits.float().cpu(), layers, strict=True), strict=True)
        return found
