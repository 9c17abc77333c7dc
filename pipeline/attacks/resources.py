"""The resources of recipes: word vectors, a sentence encoder, a part-of-speech tagger and the like.

A resource comes from one of three places: TextAttack's stock (network, or its cache), local files that params.yaml
names, or the demo's generated ones. All are checked (`needs`) before the first is loaded.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.attacks.needs import KEY, ResourceChoice, check
from pipeline.attacks.setting import Engine
from pipeline.attacks.settings import NEEDS
from pipeline.errors import DataError

NEIGHBOURS = 50
"""Candidates per word that TextFooler uses."""
DEMO_WIDTH, DEMO_SEED = 64, 0


@dataclass(frozen=True, eq=False)
class WordVectors:
    """words (v,), vectors (v, width) float32, and neighbours (v, k): each word's nearest others, nearest first."""

    words: list[str]
    vectors: np.ndarray
    neighbours: np.ndarray


@dataclass(frozen=True)
class Resources:
    """The resources that `recipes.build_attack` puts into a recipe; None keeps the recipe's stock.

    Attributes:
        vectors: word vectors, which give synonyms and their cosines.
        encode: texts to vectors, a `sentences.Encode`.
        tagger: whether part of speech is checked.
        cosine: smallest cosine between original and changed window; None: the recipe's own.
        stop_words: words that are not changed, for recipes without a list of their own; None: NLTK's English ones.
        masked_lm: folder of the masked language model that proposes words.
    """

    vectors: WordVectors | None
    encode: Any
    tagger: bool
    cosine: float | None
    stop_words: frozenset[str] | None = None
    masked_lm: Path | None = None


def resolve(
    choice: ResourceChoice, device: str, recipe: str = "textfooler", engine: Engine = "pytorch", threads: int = 1
) -> Resources:
    """Check and load the resources that a recipe needs; the stock replaces a local one that is not named.

    Args:
        engine: what a local sentence encoder runs in; its compute threads are `threads` where that is ONNX Runtime.

    Raises:
        DataError: a resource is missing, unreadable or cannot be downloaded.
    """
    resources = check(choice, recipe)
    if resources is None:
        return _demo()
    needs = NEEDS[recipe]
    vectors = load_vectors(resources.word_vectors) if resources.word_vectors and "word_vectors" in needs else None
    encode = None
    if resources.sentence_encoder and "sentence_encoder" in needs:
        from pipeline.attacks.sentences import MeanPooled

        key = f"{KEY}.sentence_encoder"
        encode = MeanPooled(resources.sentence_encoder, device, key, None if engine == "pytorch" else threads)
    return Resources(
        vectors,
        encode,
        True,
        resources.sentence_threshold,
        masked_lm=resources.masked_lm,
    )


def load_vectors(path: Path) -> WordVectors:
    """Read word vectors from an .npz without unpickling.

    The file holds `words` (uint8, UTF-8, newline-joined), `vectors` (v, width) of any real type (a scale does not
    change a cosine), and `nn` (v, k) integers: the nearest other words of each word.

    Raises:
        DataError: unreadable, an array is missing, or the arrays do not fit each other.
    """
    key = f"{KEY}.word_vectors: {str(path)!r}"
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise ValueError("it is an .npy, one array without a name")
            with stored:
                words = bytes(stored["words"]).decode("utf-8").split("\n")
                vectors = stored["vectors"].astype(np.float32)
                neighbours = stored["nn"].astype(np.int64)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{key} cannot be read ({reason}); give an .npz with words, vectors and nn") from None
    shapes = f"{len(words)} words, vectors {vectors.shape}, nn {neighbours.shape}"
    fits = vectors.ndim == neighbours.ndim == 2 and len(words) == len(vectors) == len(neighbours)
    if not fits or len(set(words)) != len(words):
        raise DataError(f"{key} does not fit together ({shapes}, words distinct); make it again")
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < len(words):
        raise DataError(f"{key} has neighbours outside its {len(words)} words; make it again")
    return WordVectors(words, vectors, neighbours)


def nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """Each row's k nearest others by cosine, nearest first, ties by index, (v, min(k, v - 1)); exact, for small v."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit.astype(np.float64) @ unit.astype(np.float64).T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(k, len(vectors) - 1)]


def _demo() -> Resources:
    """The demo's resources: synonyms by construction, sentences as means of words, no tagger.

    A tagger needs data from elsewhere. It would refuse nothing: all words of a synonym set have one role.
    """
    from pipeline.attacks.sentences import mean_of_words
    from pipeline.tasks.demo.text import word_vectors

    words, vectors = word_vectors(DEMO_WIDTH, DEMO_SEED)
    return Resources(
        WordVectors(list(words), vectors, nearest(vectors, NEIGHBOURS)),
        mean_of_words(words, vectors),
        tagger=False,
        cosine=None,
        stop_words=frozenset({"a", "an", "and", "but", "of", "the", "to"}),
    )
