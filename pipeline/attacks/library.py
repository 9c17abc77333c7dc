"""Importing TextAttack without network and without leaving anything behind. All imports of it come after this one."""

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
    """Import TextAttack; nothing is fetched, and environment, home folder and NLTK paths are left as they were.

    The import asks NLTK for English stop words, for default constraints that no recipe of ours uses. Where NLTK has
    none, a few words in a private folder stand in while the import lasts.

    Raises:
        DataError: TextAttack's cache folder cannot be written, without which it cannot be imported.
    """
    parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
    try:
        with _stop_words(), _marked_as_installed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries that it draws in warn about their own past
            import textattack
            import textattack.attack_recipes
    finally:  # TextAttack switches the tokenizers' threads on, whatever runtime.threads says
        if parallelism is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallelism
    # It warns that it does not know the class of our models.
    logging.getLogger("textattack.shared.utils.install").setLevel(logging.ERROR)
    gc.freeze()  # what was imported stays: half a second of each search for garbage behind a defence
    return textattack


@contextlib.contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Give a module or class another attribute while this lasts."""
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
    """Let TextAttack split each string into words once while this lasts: to change one word of a text it splits every
    word of it twice, by two regular expressions, for each candidate anew."""
    with replaced(import_textattack().shared.attacked_text, "words_from_text", lambda text: list(_words(text))):
        yield


@lru_cache(maxsize=2**16)
def _words(text: str) -> list[str]:
    from textattack.shared.utils.strings import words_from_text  # imported long since; asking so costs nothing

    split: list[str] = words_from_text(text)
    return split


@contextlib.contextmanager
def _marked_as_installed() -> Iterator[None]:
    """Tell TextAttack that its post-install downloads are done; take that back if it was not so.

    One process at a time, or another would see the marker and import while this one takes it away. The lock's file
    stays, as TextAttack's own does: to remove it would be the same race again.
    """
    marker = cache_folder() / _MARKER
    with contextlib.ExitStack() as held:
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(marker.with_name(_LOCK)))
            was_there = marker.exists()
            if not was_there:
                marker.touch()
        except (OSError, NotImplementedError) as error:  # the second: a file system without locks
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
    """Make sure that NLTK finds a stop-word list."""
    import nltk

    if _found(nltk, "corpora/stopwords") or _found(nltk, "corpora/stopwords.zip"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="early-exit-nltk-") as folder:
        corpus = Path(folder)
        for part in ("corpora", "stopwords"):
            corpus = corpus / part
            corpus.mkdir(mode=0o700)  # NLTK reads no folder that others can write to, whatever the umask
        words = corpus / "english"
        words.write_text("a\nan\nand\nof\nthe\n", encoding="utf-8")
        words.chmod(0o600)
        nltk.data.path.insert(0, folder)
        try:
            yield
        finally:
            nltk.data.path.remove(folder)


def _found(nltk: Any, resource: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nltk.data.find(resource)
        except LookupError:
            return False
    return True
