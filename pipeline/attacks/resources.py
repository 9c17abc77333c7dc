"""What TextFooler needs besides the victim: word vectors, a sentence encoder, a part-of-speech tagger.

Each comes from one of three places: TextAttack's stock (network, or its cache), local files named in params, or the
demo's own, which the project makes. Every one is checked before the first is loaded.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.attacks.stock import TAGGER, check_stock_encoder, check_stock_tagger, check_stock_vectors, nltk_refusal
from pipeline.errors import DataError
from pipeline.files import file_hash
from pipeline.params import AttackResources

KEY = "attack.resources"
NEIGHBOURS = 50
"""Candidates per word that the recipe asks for."""
DEMO_WIDTH, DEMO_SEED = 64, 0
RECIPE_COSINE = 0.8776
"""The recipe's own sentence threshold, 0.840845 on 1 - acos(cos) / pi, as a cosine."""


@dataclass(frozen=True)
class WordVectors:
    """words (v,), vectors (v, width) float32, and neighbours (v, k): each word's nearest others, nearest first."""

    words: list[str]
    vectors: np.ndarray
    neighbours: np.ndarray


@dataclass(frozen=True)
class Resources:
    """What `textfooler.build_attack` puts into the recipe; None leaves the recipe's stock in place.

    Attributes:
        vectors: synonym candidates and their cosine.
        encode: texts to vectors, a `sentences.Encode`.
        tagger: whether part of speech is checked.
        cosine: smallest cosine between original and changed window; None: the recipe's own.
        about: where each came from, for the result; JSON.
        stock: all of them are the recipe's own, so that results are comparable with published ones.
    """

    vectors: WordVectors | None
    encode: Any
    tagger: bool
    cosine: float | None
    about: dict[str, Any]
    stock: bool


def resolve(setting: AttackResources | Literal["stock", "demo"], device: str) -> Resources:
    """Check, then load, what `attack.resources` names; a local resource that is left out is the stock one.

    Raises:
        DataError: a resource is missing, unreadable or not to be fetched: one line with key, value and remedy.
    """
    if setting == "demo":
        return _demo()
    wanted = AttackResources() if setting == "stock" else setting
    _check(wanted)
    vectors = load_vectors(wanted.word_vectors) if wanted.word_vectors else None
    encode = None
    if wanted.sentence_encoder:
        from pipeline.attacks.sentences import MeanPooled

        encode = MeanPooled(wanted.sentence_encoder, device, f"{KEY}.sentence_encoder")
    return Resources(vectors, encode, True, wanted.sentence_threshold, _about(wanted), wanted == AttackResources())


def _check(wanted: AttackResources) -> None:
    if wanted.word_vectors is None:
        check_stock_vectors(f"{KEY}.word_vectors")
    elif not wanted.word_vectors.is_file():
        raise DataError(f"{KEY}.word_vectors: {str(wanted.word_vectors)!r} is no file; give an .npz of vectors")
    if wanted.sentence_encoder is None:
        check_stock_encoder(f"{KEY}.sentence_encoder")
    else:
        from pipeline.attacks.sentences import check_encoder

        check_encoder(wanted.sentence_encoder, f"{KEY}.sentence_encoder")
    if wanted.nltk_data is None:
        check_stock_tagger(f"{KEY}.nltk_data")
    else:
        _open_nltk(wanted.nltk_data)


def _open_nltk(folder: Path) -> None:
    """Put a folder in front of NLTK's paths, where it stays for this process; NLTK reads no zip outside them."""
    import nltk

    key = f"{KEY}.nltk_data: {str(folder)!r}"
    if not folder.is_dir():
        raise DataError(f"{key} is no folder; give one that holds {' and '.join(sorted(set(TAGGER.values())))}")
    place = str(folder.resolve())
    others, nltk.data.path[:] = list(nltk.data.path), [place]  # no other path may answer in its place
    refusals = {file: nltk_refusal(file) for file in TAGGER}
    nltk.data.path[:] = others
    for file, refusal in refusals.items():
        if refusal == "missing":
            raise DataError(f"{key} has no {file}; put it there with nltk.download({TAGGER[file]!r}, download_dir=...)")
        if refusal == "unsafe":
            raise DataError(
                f"{key} can be written by other accounts, and NLTK then refuses it; run chmod -R go-w on it, "
                "or name a private copy"
            )
    nltk.data.path[:] = [place, *(path for path in others if path != place)]


def load_vectors(path: Path) -> WordVectors:
    """Read word vectors from an .npz; nothing in it is unpickled.

    Holds `words` (uint8, UTF-8, newline-joined), `vectors` (v, width) of any real type (a scale per file or row does
    not matter to a cosine), and `nn` (v, k) integers, each word's nearest others, the word itself left out.

    Raises:
        DataError: unreadable, an array missing, or arrays that do not fit each other.
    """
    key = f"{KEY}.word_vectors: {str(path)!r}"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            words = bytes(stored["words"]).decode("utf-8").split("\n")
            vectors = stored["vectors"].astype(np.float32)
            neighbours = stored["nn"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{key} cannot be read ({reason}); give an .npz with words, vectors and nn") from None
    shapes = f"{len(words)} words, vectors {vectors.shape}, nn {neighbours.shape}"
    fits = vectors.ndim == neighbours.ndim == 2 and len(words) == len(vectors) == len(neighbours)
    if not fits or len(set(words)) != len(words):
        raise DataError(f"{key} does not fit together ({shapes}, words distinct); make it anew")
    if neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < len(words):
        raise DataError(f"{key} has neighbours outside its {len(words)} words; make it anew")
    return WordVectors(words, vectors, neighbours)


def nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """Each row's k nearest others by cosine, nearest first and ties by index, (v, min(k, v - 1)); exact, so small v."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit.astype(np.float64) @ unit.astype(np.float64).T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(k, len(vectors) - 1)]


def _demo() -> Resources:
    """The demo's: synonyms by construction, sentences as means of words, no tagger.

    There is no tagger to be had offline without data from elsewhere; a synonym set of the demo lies within one word
    role, so the check would have nothing to refuse.
    """
    from pipeline.attacks.sentences import mean_of_words
    from pipeline.data.demo import word_vectors

    words, vectors = word_vectors(DEMO_WIDTH, DEMO_SEED)
    about = {
        "word_vectors": f"demo, {len(words)} words of width {DEMO_WIDTH}",
        "sentence_encoder": "demo, mean of the word vectors",
        "part_of_speech": "not checked: the demo has no tagger, and its synonyms share their word role",
        "sentence_cosine": RECIPE_COSINE,
    }
    return Resources(
        WordVectors(list(words), vectors, nearest(vectors, NEIGHBOURS)),
        mean_of_words(words, vectors),
        tagger=False,
        cosine=None,
        about=about,
        stock=False,
    )


def _about(wanted: AttackResources) -> dict[str, Any]:
    vectors, encoder = wanted.word_vectors, wanted.sentence_encoder
    return {
        "word_vectors": str(vectors) if vectors else "stock, counter-fitted PARAGRAM-SL999",
        "word_vectors_sha256": file_hash(vectors) if vectors else None,
        "sentence_encoder": str(encoder) if encoder else "stock, Universal Sentence Encoder",
        "sentence_encoder_sha256": file_hash(encoder / "model.safetensors") if encoder else None,
        "part_of_speech": f"NLTK averaged perceptron, universal tags, from {wanted.nltk_data or 'its own paths'}",
        "sentence_cosine": RECIPE_COSINE if wanted.sentence_threshold is None else wanted.sentence_threshold,
    }
