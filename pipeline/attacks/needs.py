"""The resources that each recipe needs: whether they are available and where they come from. Loads none of them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.attacks.settings import NEEDS, AttackResources
from pipeline.attacks.stock import (
    NLTK,
    check_stock_encoder,
    check_stock_masked_lm,
    check_stock_nltk,
    check_stock_vectors,
    nltk_refusal,
)
from pipeline.errors import DataError
from pipeline.layout import HERE
from pipeline.storage import file_hash

KEY = "attack.resources"
RECIPE_COSINE = 0.8776
"""The recipe's own sentence threshold, 0.840845 on 1 - acos(cos) / pi, as a cosine."""
ResourceChoice = AttackResources | Literal["stock", "demo"]


def check(choice: ResourceChoice, recipe: str) -> AttackResources | None:
    """Check that every resource of a recipe is available, and put the NLTK folder in front of NLTK's paths.

    Returns:
        The resources to load; None for the demo's.

    Raises:
        DataError: a resource is missing and cannot be downloaded.
    """
    if choice == "demo":
        return None
    needs = NEEDS[recipe]
    resources = AttackResources() if choice == "stock" else choice
    if "word_vectors" in needs:
        _check_vectors(resources.word_vectors)
    for name, stock in (("sentence_encoder", check_stock_encoder), ("masked_lm", check_stock_masked_lm)):
        folder: Path | None = getattr(resources, name)
        if name in needs and folder is None:
            stock(f"{KEY}.{name}")
        elif name in needs and folder is not None:
            from pipeline.attacks.sentences import check_encoder

            check_encoder(folder, f"{KEY}.{name}")
    files = {file: package for part in needs for file, package in NLTK.get(part, {}).items()}
    if resources.nltk_data is None:
        check_stock_nltk(f"{KEY}.nltk_data", files)
    else:
        _open_nltk(resources.nltk_data, files)
    return resources


def _check_vectors(path: Path | None) -> None:
    if path is None:
        check_stock_vectors(f"{KEY}.word_vectors")
    elif not path.is_file():
        raise DataError(f"{KEY}.word_vectors: {str(path)!r} is no file; give an .npz of vectors")


def _open_nltk(folder: Path, files: Mapping[str, str]) -> None:
    """Put a folder in front of NLTK's paths for this process: NLTK reads a zip only below its paths."""
    import nltk

    key = f"{KEY}.nltk_data: {str(folder)!r}"
    if not folder.is_dir():
        raise DataError(f"{key} is no folder; give one that holds {' and '.join(sorted(set(files.values())))}")
    place = str(folder.resolve())
    others, nltk.data.path[:] = list(nltk.data.path), [place]  # so that the check sees this folder alone
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


def describe(choice: ResourceChoice, recipe: str) -> dict[str, Any]:
    """The origin of each resource, with the hash of a local one; JSON, for the result."""
    if choice == "demo":
        return {
            "word_vectors": "demo, synonyms by construction",
            "sentence_encoder": "demo, mean of the word vectors",
            "part_of_speech": "not checked: the demo has no tagger, and its synonyms share their word role",
            "sentence_cosine": RECIPE_COSINE,
        }
    resources = AttackResources() if choice == "stock" else choice
    needs = NEEDS[recipe]
    stock = {
        "word_vectors": "stock, counter-fitted PARAGRAM-SL999",
        "sentence_encoder": "stock, Universal Sentence Encoder",
        "masked_lm": "stock, bert-base-uncased",
    }
    origins: dict[str, Any] = {}
    for name in (name for name in stock if name in needs):
        path: Path | None = getattr(resources, name)
        origins[name] = str(path) if path else stock[name]
        weights = path / "model.safetensors" if path is not None and name != "word_vectors" else path
        origins[f"{name}_sha256"] = file_hash(weights) if weights else None
    origins |= _describe_nltk(resources.nltk_data, needs)
    if "sentence_encoder" in needs:
        cosine: float | str = RECIPE_COSINE if recipe == "textfooler" else "the recipe's own"
        origins["sentence_cosine"] = cosine if resources.sentence_threshold is None else resources.sentence_threshold
    return origins


def _describe_nltk(folder: Path | None, needs: Collection[str]) -> dict[str, Any]:
    where = str(folder or "its own paths")
    descriptions = {
        "tagger": ("part_of_speech", f"NLTK averaged perceptron, universal tags, from {where}"),
        "stop_words": ("stop_words", f"NLTK, English, from {where}"),
        "wordnet": ("wordnet", f"NLTK, from {where}"),
    }
    origins: dict[str, Any] = {}
    for part in (part for part in descriptions if part in needs):
        name, origins[descriptions[part][0]] = descriptions[part]
        files = sorted({file for item in NLTK[part] for file in _stored(folder, item)}) if folder else []
        origins[f"{name}_sha256"] = file_hash(*files) if files else None
    return origins


def _stored(folder: Path, item: str) -> list[Path]:
    """The files of an NLTK item: the file itself, a folder's files, or the package's zip."""
    path = folder / item
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    package = folder / Path(*Path(item).parts[:2])
    return [path if path.is_file() else package.with_name(f"{package.name}.zip")]


def local_files(choice: ResourceChoice) -> list[Path]:
    """Every file of the local resources."""
    paths = [path for _, path in choice if isinstance(path, Path)] if isinstance(choice, AttackResources) else []
    return [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]


def as_sent(choice: ResourceChoice) -> ResourceChoice:
    """The resources on a worker: where the storage put them, if it did."""
    if not isinstance(choice, AttackResources):
        return choice
    sent = {name: HERE.sent(path) for name, path in choice if isinstance(path, Path)}
    return choice.model_copy(update={name: path for name, path in sent.items() if path.exists()})


def identity(choice: ResourceChoice, recipe: str) -> dict[str, Any]:
    """`describe` without the places of local files, so that equal contents have equal identities."""
    origins = describe(choice, recipe)
    return {name: value for name, value in origins.items() if origins.get(f"{name}_sha256") is None}
