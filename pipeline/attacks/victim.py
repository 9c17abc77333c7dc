"""The model under attack: texts in, logits out, and what each text cost in layers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.tokens import by_length, collate
from pipeline.live import LiveEngine

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32
Text = str | tuple[str, ...]


class Victim:
    """What TextAttack calls a model wrapper, over the live engine: a list of texts to logits.

    Texts are padded to the longest of a batch of like length, not to the tokenizer's maximum. Every row leaves on its
    own account, so an answer does not depend on what else is in the list (up to the rounding of a batched product).
    No base class of TextAttack's is needed, so this module imports without it.

    Args:
        engine: the model with its exit rule.
        tokenizer: truncates as the model's training tokens were; does not pad.
        device: the engine's.
        batch_size: rows per forward pass.

    Attributes:
        model: TextAttack looks at its class.
        layers: each text answered since `forget`, in order, and the number of layers it went through, counted from
            1 (the layer of the exit that answered it). A text asked twice is there once.
    """

    def __init__(self, engine: LiveEngine, tokenizer: "Tokenizer", device: str, batch_size: int = BATCH) -> None:
        self.engine, self.tokenizer, self.device, self.batch_size = engine, tokenizer, device, batch_size
        self.model = engine.model
        self.layers: dict[Text, int] = {}

    def forget(self) -> None:
        """Start a new record of layers."""
        self.layers = {}

    def __call__(self, texts: Sequence[str | tuple[str, ...] | Mapping[str, str]]) -> Tensor:
        """Answer texts; a pair is a tuple or mapping of two.

        Returns:
            Logits of the exit that answered each row, (n, outputs), float32 on the CPU. Not probabilities: TextAttack
            applies a softmax to rows that do not sum to 1.

        Raises:
            InvalidLogitsError: the model answered NaN.
        """
        plain: list[Text] = [tuple(text.values()) if isinstance(text, Mapping) else text for text in texts]
        logits = torch.empty((len(plain), self.model.outputs), dtype=torch.float32)
        if not plain:
            return logits
        encoded: list[Any] = self.tokenizer.encode_batch(plain)
        exits = np.empty(len(plain), dtype=np.int64)
        for rows in by_length(np.array([len(e.ids) for e in encoded]), self.batch_size):
            batch = collate([encoded[i].ids for i in rows], [encoded[i].type_ids for i in rows], self.device)
            answers = self.engine(batch)
            logits[torch.from_numpy(rows)] = answers.logits.float().cpu()
            exits[rows] = answers.exit_index.cpu().numpy()
        for text, index in zip(plain, exits, strict=True):
            self.layers[text] = self.model.exits[index]
        return logits
