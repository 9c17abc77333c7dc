"""The model under attack: texts in, logits out, with the layers that each text took."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.attacks.examples import Text
from pipeline.attacks.setting import Scores
from pipeline.evaluation.leaving import Leaving, Rule, leave_recorded
from pipeline.tasks.text.tokens import collate, in_buckets

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""A text as the model reads it: token ids and segment ids."""


class Known(NamedTuple):
    """The answer to a row: logits (outputs,), layers run, and the deepest exit's logits where the search follows it."""

    logits: Tensor
    layers: int
    deepest: Tensor | None


class Live(Protocol):
    """A model at an operating point: `LiveEngine`, or the model's graphs.

    Attributes:
        model: has `exits` and `outputs`.
    """

    model: Any
    rule: Rule

    def __call__(self, batch: Mapping[str, Tensor]) -> Leaving: ...
    def record(self, batch: Mapping[str, Tensor]) -> tuple[np.ndarray, dict[str, np.ndarray]]: ...


Recorded = dict[tuple[Row, ...], tuple[np.ndarray, dict[str, np.ndarray]]]
"""A batch's rows to what `Live.record` gives."""


@dataclass
class Memo:
    """The answers to all texts that the attack on one example has tried.

    Attributes:
        answers: token row to its answer.
        layers: text to the number of layers run, in the order of the first query.
        deepest: text to the deepest exit's logits (outputs,), where the search follows it.
    """

    answers: dict[Row, Known] = field(default_factory=dict)
    layers: dict[Text, int] = field(default_factory=dict)
    deepest: dict[Text, Tensor] = field(default_factory=dict)


class Victim:
    """TextAttack's model wrapper over a live engine: a list of texts to logits.

    Batches hold texts of similar length and are padded to the longest. Each row exits by itself, so an answer does not
    depend on the other texts, up to the rounding of a batched product. Texts with equal tokens are one row, which the
    model answers once per memo. So two unknown words in the same place tie, where two answers could differ in the last
    bit. The class needs no base class of TextAttack's, so this module imports without it.

    Args:
        engine: the model with its criterion.
        tokenizer: truncates as in training; does not pad.
        device: the engine's device.
        batch_size: rows per forward pass.
        scores: the exit whose probabilities the search follows. For the deepest one each row runs all layers, on the
            attacker's side; the layers that are told are those that the defence takes for it.
        recorded: such passes of the model, which its criteria share, since their searches ask much the same. Whole
            batches are kept, so that no number depends on what was asked before.

    Attributes:
        model: the model, whose class TextAttack reads.
        adaptive: whether the search follows another exit than the one that answers.
        memo: answers to TextAttack's calls since the last `forget`.
    """

    def __init__(
        self,
        engine: Live,
        tokenizer: "Tokenizer",
        device: str,
        batch_size: int = BATCH,
        scores: Scores = "answered",
        recorded: Recorded | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.device, self.batch_size = engine, tokenizer, device, batch_size
        self.model = engine.model
        self.adaptive = scores == "deepest" and engine.rule.criterion is not None
        self.recorded: Recorded = {} if recorded is None else recorded
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
        strings: list[Text] = [tuple(text.values()) if isinstance(text, Mapping) else text for text in texts]
        return self.ask([(self.memo, strings)])[0]

    def ask(self, questions: Sequence[tuple[Memo, Sequence[Text]]]) -> list[Tensor]:
        """Answer several lists of texts, each with its own memo, in shared batches."""
        texts = [text for _, group in questions for text in group]
        rows = iter(self._rows(texts))
        rows_by_group = [[next(rows) for _ in group] for _, group in questions]
        new_rows = (
            r for (memo, _), group in zip(questions, rows_by_group, strict=True) for r in group if r not in memo.answers
        )
        answers = self._answer(list(dict.fromkeys(new_rows)))
        out = []
        for (memo, group), group_rows in zip(questions, rows_by_group, strict=True):
            logits = torch.empty((len(group_rows), self.model.outputs), dtype=torch.float32)
            for i, (text, row) in enumerate(zip(group, group_rows, strict=True)):
                if row not in memo.answers:
                    memo.answers[row] = answers[row]
                logits[i], memo.layers[text], deepest = memo.answers[row]
                if deepest is not None:
                    memo.deepest[text] = deepest
            out.append(logits)
        return out

    def _rows(self, texts: Sequence[Text]) -> Iterable[Row]:
        encoded: list[Any] = self.tokenizer.encode_batch(list(texts)) if texts else []
        return ((tuple(e.ids), tuple(e.type_ids)) for e in encoded)

    def _answer(self, rows: Sequence[Row]) -> dict[Row, Known]:
        answers: dict[Row, Known] = {}
        for part in in_buckets(np.array([len(ids) for ids, _ in rows]), self.batch_size):
            batch = tuple(rows[i] for i in part)
            answers |= zip(batch, self._led(batch) if self.adaptive else self._plain(batch), strict=True)
        return answers

    def _plain(self, rows: tuple[Row, ...]) -> Iterator[Known]:
        """Answers that run the layers which they take."""
        left = self.engine(self._batch(rows))
        for logits, index in zip(torch.from_numpy(left.logits), left.exit_index.tolist(), strict=True):
            yield Known(logits, self.model.exits[index], None)

    def _led(self, rows: tuple[Row, ...]) -> Iterator[Known]:
        """Answers with the deepest exit's, from one pass through all layers."""
        if rows not in self.recorded:
            self.recorded[rows] = self.engine.record(self._batch(rows))
        every, channels = self.recorded[rows]
        leaving = leave_recorded(self.engine.rule, every, channels)
        answers = torch.from_numpy(leaving.logits), leaving.exit_index.tolist(), torch.from_numpy(every[:, -1])
        for logits, index, deepest in zip(*answers, strict=True):
            yield Known(logits, self.model.exits[index], deepest)

    def _batch(self, rows: tuple[Row, ...]) -> dict[str, Tensor]:
        return collate([ids for ids, _ in rows], [types for _, types in rows], self.device)
