"""The import of TextAttack, without network and without side effects. Every other import of it comes after this one."""

import contextlib
import gc
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.errors import DataError

_MARKER = "post_install_check_3"  # TextAttack 0.3.11 fetches six NLTK packages unless this file lies in its cache
_LOCK = "early_exit_import.lock"


def cache_folder() -> Path:
    """Where TextAttack keeps what it fetched."""
    return Path(os.environ.get("TA_CACHE_DIR", "~/.cache/textattack")).expanduser()


@cache
def import_textattack() -> Any:
    """Import TextAttack; it downloads nothing, and environment, home folder and NLTK paths stay as they were.

    TextAttack reads NLTK's English stop words when it is imported, for constraints that no recipe here uses. Where NLTK
    has none, a private folder with a few words replaces them during the import.

    Raises:
        DataError: TextAttack's cache folder cannot be written; the import needs it.
    """
    parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
    try:
        with _stop_words(), _marked_as_installed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation warnings of the libraries that it imports
            import textattack
            import textattack.attack_recipes
    finally:  # TextAttack turns on the tokenizers' threads, against runtime.threads
        if parallelism is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallelism
    # TextAttack warns about model classes that it does not know.
    logging.getLogger("textattack.shared.utils.install").setLevel(logging.ERROR)
    gc.freeze()  # what was imported stays: half a second of each search for garbage behind a defence
    return textattack


@contextlib.contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a module or class for the duration of the context."""
    stock = vars(holder).get(name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if stock is None:
            delattr(holder, name)
        else:
            setattr(holder, name, stock)


@contextlib.contextmanager
def words_remembered() -> Iterator[None]:
    """Cache TextAttack's splitting of strings into words for the duration of the context.

    To change one word, TextAttack splits the whole text twice, for each candidate.
    """
    with replaced(import_textattack().shared.attacked_text, "words_from_text", lambda text: list(_words(text))):
        yield


@lru_cache(maxsize=2**16)
def _words(text: str) -> list[str]:
    from textattack.shared.utils.strings import words_from_text  # already imported by the caller

    split: list[str] = words_from_text(text)
    return split


@contextlib.contextmanager
def _marked_as_installed() -> Iterator[None]:
    """Mark TextAttack's post-install downloads as done for the duration of the import.

    A lock lets one process at a time do so; another would see the marker just before it is removed. The lock file
    stays, since removing it would be the same race.
    """
    marker = cache_folder() / _MARKER
    with contextlib.ExitStack() as held:
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(marker.with_name(_LOCK)))
            was_there = marker.exists()
            if not was_there:
                marker.touch()
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            raise DataError(
                f"TextAttack cannot write its cache folder {marker.parent} ({error}); "
                "set TA_CACHE_DIR to a writable one"
            ) from None
        try:
            yield
        finally:
            if not was_there:
                marker.unlink(missing_ok=True)


@contextlib.contextmanager
def _stop_words() -> Iterator[None]:
    """Provide a stop-word list where NLTK has none."""
    import nltk

    if _has_resource(nltk, "corpora/stopwords") or _has_resource(nltk, "corpora/stopwords.zip"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="early-exit-nltk-") as folder:
        corpus = Path(folder)
        for part in ("corpora", "stopwords"):
            corpus = corpus / part
            corpus.mkdir(mode=0o700)  # NLTK refuses a folder that other accounts can write to
        words = corpus / "english"
        words.write_text("a\nan\nand\nof\nthe\n", encoding="utf-8")
        words.chmod(0o600)
        nltk.data.path.insert(0, folder)
        try:
            yield
        finally:
            nltk.data.path.remove(folder)


def _has_resource(nltk: Any, resource: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nltk.data.find(resource)
        except LookupError:
            return False
    return True
