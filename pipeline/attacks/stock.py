"""Checks that the recipes' stock resources are cached or can be downloaded, before anything slow starts."""

import hashlib
import importlib.util
import os
import tempfile
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.attacks.library import cache_folder
from pipeline.errors import DataError

_NAME = "averaged_perceptron_tagger_eng"
TAGGER = {
    **{f"taggers/{_NAME}/{_NAME}.{part}.json": _NAME for part in ("weights", "tagdict", "classes")},
    "taggers/universal_tagset/en-ptb.map": "universal_tagset",
}
"""Files of NLTK 3.10's part-of-speech tagger, and the package of each; TextAttack downloads an older, pickled one."""
NLTK: Mapping[str, Mapping[str, str]] = {
    "tagger": TAGGER,
    "stop_words": {"corpora/stopwords": "stopwords"},
    "wordnet": {"corpora/wordnet": "wordnet", "corpora/omw-1.4": "omw-1.4"},
}
"""NLTK resource to its files or folders, and the package of each."""

_VECTORS = ("word_embeddings/paragramcf", "https://textattack.s3.amazonaws.com/word_embeddings/paragramcf")
_ENCODER = "https://tfhub.dev/google/universal-sentence-encoder/3"
_MASKED_LM = "bert-base-uncased"
_NLTK_INDEX = "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/index.xml"
_TIMEOUT = 5.0  # seconds


def check_stock_vectors(key: str) -> None:
    """Check that TextAttack's counter-fitted vectors are cached or can be downloaded (481 MB, some files pickled).

    The check comes first because a failed download keeps its lock: a second try in the process ends with "Deadlock".

    Raises:
        DataError: neither.
    """
    folder, address = _VECTORS
    cached = cache_folder() / folder
    if not cached.is_dir() and not _reachable(address):
        raise DataError(
            f"{key}: the stock counter-fitted vectors are not in {cached} and cannot be downloaded from {address}; "
            "name a local .npz there, or set attack.resources to demo"
        )


def check_stock_encoder(key: str) -> None:
    """Check that the Universal Sentence Encoder's runtime is installed, and that the model is cached or downloadable.

    Raises:
        DataError: one of them is missing.
    """
    for module in ("tensorflow", "tensorflow_hub"):
        if importlib.util.find_spec(module) is None:
            raise DataError(
                f"{key}: the stock Universal Sentence Encoder needs {module}, which is not installed; "
                "install tensorflow and tensorflow_hub, or name a local encoder's folder there"
            )
    root = Path(os.environ.get("TFHUB_CACHE_DIR", Path(tempfile.gettempdir()) / "tfhub_modules"))
    cached = root / hashlib.sha1(_ENCODER.encode()).hexdigest()
    if not cached.is_dir() and not _reachable(_ENCODER):
        raise DataError(
            f"{key}: the stock Universal Sentence Encoder is not in {cached} and cannot be downloaded from {_ENCODER}; "
            "name a local encoder's folder there"
        )


def check_stock_masked_lm(key: str) -> None:
    """Check that the recipe's masked language model is cached or can be downloaded.

    Raises:
        DataError: neither.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(_MASKED_LM, "config.json")
    if not isinstance(cached, str) and not _reachable(f"https://huggingface.co/{_MASKED_LM}"):
        raise DataError(
            f"{key}: the stock masked language model {_MASKED_LM!r} is not cached and cannot be downloaded; "
            "name a local model's folder there"
        )


def check_stock_nltk(key: str, files: Mapping[str, str]) -> None:
    """Check that NLTK has the files; download missing packages where the network allows.

    Args:
        files: file or folder to its package.

    Raises:
        DataError: a file is missing and cannot be downloaded.
    """
    import nltk

    missing = _missing(files)
    if missing and _reachable(_NLTK_INDEX):
        for package in missing:
            nltk.download(package, quiet=True)
        missing = _missing(files)
    if missing:
        raise DataError(
            f"{key}: NLTK finds no {' or '.join(missing)} and cannot download it; name a local folder that has it"
        )


def _missing(files: Mapping[str, str]) -> list[str]:
    return sorted({files[file] for file in files if nltk_refusal(file)})


def nltk_refusal(resource: str) -> Literal["missing", "unsafe"] | None:
    """Why NLTK cannot read a file: missing, or unsafe (another account can write to it); None where it can."""
    import nltk

    refusals = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller reports it in one line
        for name in (resource, f"{resource}.zip") if resource.startswith("corpora/") else (resource,):
            try:
                nltk.data.find(name)
            except LookupError as error:
                refusals.append(str(error))
            else:
                return None
    return "unsafe" if any("Refused" in refusal for refusal in refusals) else "missing"


def _reachable(address: str) -> bool:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return True
    except (OSError, ValueError):
        return False
