"""Sentence encoders: the attack compares their vectors to check that a changed text keeps its meaning."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import DataError
from pipeline.models.names import first_position
from pipeline.tasks.text.tokens import collate, in_buckets

Encode = Callable[[Sequence[str]], Tensor]
"""n texts to their vectors, (n, width) float32."""
Means = Callable[[Mapping[str, Tensor]], Tensor]
"""A batch of n rows of tokens to the means of their last hidden states, (n, width) float32."""

BATCH = 64
_FILES = ("config.json", "tokenizer.json", "model.safetensors")


def mean_of_words(words: Sequence[str], vectors: np.ndarray) -> Encode:
    """An encoder that averages the vectors of a text's lower-cased words; a text without known words gives zeros.

    Args:
        words: (v,).
        vectors: (v, width) float32.
    """
    index = {word: i for i, word in enumerate(words)}

    def encode(texts: Sequence[str]) -> Tensor:
        out = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        for row, text in enumerate(texts):
            indices = [index[word] for word in text.lower().split() if word in index]
            if indices:
                out[row] = vectors[indices].mean(axis=0)
        return torch.from_numpy(out)

    return encode


def check_encoder(folder: Path, key: str) -> None:
    """Check that a folder holds an encoder, without loading it.

    Raises:
        DataError: not a folder, or a file is missing.
    """
    if not folder.is_dir():
        raise DataError(f"{key}: {str(folder)!r} is no folder; give one with {', '.join(_FILES)}")
    for name in _FILES:
        if not (folder / name).is_file():
            raise DataError(f"{key}: {str(folder)!r} has no {name}; give a folder with {', '.join(_FILES)}")


class MeanPooled:
    """An encoder's last hidden states, averaged over the tokens, as sentence-transformers does for MiniLM.

    Weights may be stored in fp16; they are loaded as float32. Equal texts are encoded once.

    Args:
        key: name of the setting, for messages.
        graph_threads: compute threads of ONNX Runtime, on the CPU; None: PyTorch.

    Raises:
        DataError: the folder's files cannot be read.
    """

    def __init__(self, folder: Path, device: str, key: str, graph_threads: int | None = None) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoConfig

        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
            if graph_threads is None:
                self.means: Means = _means(folder, device)
            else:
                from pipeline.attacks.graphs import means_of

                self.means = means_of(folder, graph_threads)
        except Exception as error:  # tokenizers raises bare Exception, the others many kinds
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{key}: {str(folder)!r} is no readable encoder ({reason}); mend the folder") from None
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(min(config.max_position_embeddings - first_position(config), 512))
        self.width, self.device = config.hidden_size, device

    def __call__(self, texts: Sequence[str]) -> Tensor:
        # A call repeats the reference window for each candidate.
        distinct = list(dict.fromkeys(texts))
        at = {text: i for i, text in enumerate(distinct)}
        return self.encode(distinct)[[at[text] for text in texts]]

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts without looking for repeats, (n, width)."""
        encoded = self.tokenizer.encode_batch(list(texts))
        out = torch.empty((len(texts), self.width), device=self.device)
        for rows in in_buckets(np.array([len(e.ids) for e in encoded]), BATCH):
            batch = collate([encoded[i].ids for i in rows], [encoded[i].type_ids for i in rows], self.device)
            out[torch.from_numpy(rows).to(self.device)] = self.means(batch)
        return out


def _means(folder: Path, device: str) -> Means:
    """The model that Transformers loads from a folder."""
    from transformers import AutoModel

    loaded: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    model = loaded.to(device).eval()

    def means(batch: Mapping[str, Tensor]) -> Tensor:
        keep = batch.get("keep", torch.ones_like(batch["input_ids"], dtype=torch.bool))
        hidden: Tensor = model(input_ids=batch["input_ids"], attention_mask=keep.long()).last_hidden_state
        weight = keep.to(hidden.dtype)[:, :, None]
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)

    return means
