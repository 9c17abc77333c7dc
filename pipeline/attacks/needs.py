"""What each recipe needs of `attack.resources`, whether it is there, and where it comes from; nothing is loaded."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.attacks.settings import AttackResources
from pipeline.attacks.stock import (
    NLTK,
    check_stock_encoder,
    check_stock_masked_lm,
    check_stock_nltk,
    check_stock_vectors,
    nltk_refusal,
)
from pipeline.errors import DataError
from pipeline.storage import file_hash

KEY = "attack.resources"
NEEDS = {
    "textfooler": ("word_vectors", "sentence_encoder", "tagger"),
    "pwws": ("stop_words", "wordnet"),
    "textbugger": ("word_vectors", "sentence_encoder", "stop_words"),
    "deepwordbug": ("stop_words",),
    "bae": ("masked_lm", "sentence_encoder", "tagger", "stop_words"),
}
"""Recipes, and what each needs; tagger, stop_words and wordnet are found in the NLTK folder."""
RECIPE_COSINE = 0.8776
"""The recipe's own sentence threshold, 0.840845 on 1 - acos(cos) / pi, as a cosine."""
Named = AttackResources | Literal["stock", "demo"]


def check(setting: Named, recipe: str) -> AttackResources | None:
    """See that all a recipe needs is there, without loading it, and put the NLTK folder in front of NLTK's paths.

    Returns:
        What is to be loaded; None for the demo's own.

    Raises:
        DataError: a resource is missing or not to be fetched: one line with key, value and remedy.
    """
    needs = NEEDS[recipe]
    if setting == "demo":
        missing = [name for name in needs if name in ("wordnet", "masked_lm")]
        if missing:
            raise DataError(
                f"{KEY}: 'demo' has no {missing[0]}, which attack.recipe {recipe!r} needs; name local resources"
            )
        return None
    wanted = AttackResources() if setting == "stock" else setting
    if "word_vectors" in needs:
        _check_vectors(wanted.word_vectors)
    for name, stock in (("sentence_encoder", check_stock_encoder), ("masked_lm", check_stock_masked_lm)):
        folder: Path | None = getattr(wanted, name)
        if name in needs and folder is None:
            stock(f"{KEY}.{name}")
        elif name in needs and folder is not None:
            from pipeline.attacks.sentences import check_encoder

            check_encoder(folder, f"{KEY}.{name}")
    files = {file: package for part in needs for file, package in NLTK.get(part, {}).items()}
    if wanted.nltk_data is None:
        check_stock_nltk(f"{KEY}.nltk_data", files)
    else:
        _open_nltk(wanted.nltk_data, files)
    return wanted


def _check_vectors(path: Path | None) -> None:
    if path is None:
        check_stock_vectors(f"{KEY}.word_vectors")
    elif not path.is_file():
        raise DataError(f"{KEY}.word_vectors: {str(path)!r} is no file; give an .npz of vectors")


def _open_nltk(folder: Path, files: Mapping[str, str]) -> None:
    """Put a folder in front of NLTK's paths, where it stays for this process; NLTK reads no zip outside them."""
    import nltk

    key = f"{KEY}.nltk_data: {str(folder)!r}"
    if not folder.is_dir():
        raise DataError(f"{key} is no folder; give one that holds {' and '.join(sorted(set(files.values())))}")
    place = str(folder.resolve())
    others, nltk.data.path[:] = list(nltk.data.path), [place]  # no other path may answer in its place
    refusals = {file: nltk_refusal(file) for file in files}
    nltk.data.path[:] = others
    for file, refusal in refusals.items():
        if refusal == "missing":
            raise DataError(f"{key} has no {file}; put it there with nltk.download({files[file]!r}, download_dir=...)")
        if refusal == "unsafe":
            raise DataError(
                f"{key} can be written by other accounts, and NLTK then refuses it; run chmod -R go-w on it, "
                "or name a private copy"
            )
    nltk.data.path[:] = [place, *(path for path in others if path != place)]


def describe(setting: Named, recipe: str) -> dict[str, Any]:
    """Where each resource comes from, with the hash of what is local; JSON, for the result."""
    if setting == "demo":
        return {
            "word_vectors": "demo, synonyms by construction",
            "sentence_encoder": "demo, mean of the word vectors",
            "part_of_speech": "not checked: the demo has no tagger, and its synonyms share their word role",
            "sentence_cosine": RECIPE_COSINE,
        }
    wanted = AttackResources() if setting == "stock" else setting
    needs = NEEDS[recipe]
    stock = {
        "word_vectors": "stock, counter-fitted PARAGRAM-SL999",
        "sentence_encoder": "stock, Universal Sentence Encoder",
        "masked_lm": "stock, bert-base-uncased",
    }
    about: dict[str, Any] = {}
    for name in (name for name in stock if name in needs):
        path: Path | None = getattr(wanted, name)
        about[name] = str(path) if path else stock[name]
        weights = path / "model.safetensors" if path is not None and name != "word_vectors" else path
        about[f"{name}_sha256"] = file_hash(weights) if weights else None
    about |= _describe_nltk(wanted.nltk_data, needs)
    if "sentence_encoder" in needs:
        own: float | str = RECIPE_COSINE if recipe == "textfooler" else "the recipe's own"
        about["sentence_cosine"] = own if wanted.sentence_threshold is None else wanted.sentence_threshold
    return about


def _describe_nltk(folder: Path | None, needs: Collection[str]) -> dict[str, Any]:
    where = str(folder or "its own paths")
    said = {
        "tagger": ("part_of_speech", f"NLTK averaged perceptron, universal tags, from {where}"),
        "stop_words": ("stop_words", f"NLTK, English, from {where}"),
        "wordnet": ("wordnet", f"NLTK, from {where}"),
    }
    about: dict[str, Any] = {}
    for part in (part for part in said if part in needs):
        name, about[said[part][0]] = said[part]
        files = sorted({file for item in NLTK[part] for file in _stored(folder, item)}) if folder else []
        about[f"{name}_sha256"] = file_hash(*files) if files else None
    return about


def _stored(folder: Path, item: str) -> list[Path]:
    """Files that hold an item of an NLTK folder: itself, or the package's zip."""
    path = folder / item
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    package = folder / Path(*Path(item).parts[:2])
    return [path if path.is_file() else package.with_name(f"{package.name}.zip")]


def identity(setting: Named, recipe: str) -> dict[str, Any]:
    """What `describe` says without the places: equal for equal contents."""
    about = describe(setting, recipe)
    return {name: value for name, value in about.items() if about.get(f"{name}_sha256") is None}
