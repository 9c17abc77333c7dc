"""Which code trains a trial of a kind, a modality and a method; `harmless` and the keys of trials agree on it here."""

import json
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.identity.code import CodeIdentity, code_identity, write_code
from pipeline.identity.equivalence import read_equivalence
from pipeline.identity.imports import ROOT
from pipeline.training.methods import METHODS
from pipeline.training.recipes.vision import VISION_METHODS

ENTRIES = {"text": "pipeline.training.trial:train_text", "image": "pipeline.training.image_trial:train_image"}
"""Modality to the function that a worker calls."""
RECIPES = {"text": "pipeline.training.recipes", "image": "pipeline.training.recipes.vision"}
CHOICES = ("pipeline.training.methods:load_recipe", "pipeline.training.recipes.vision:load_vision_recipe")
"""Functions that pick one of several by a name that is in the settings: what they pick is a root of its own."""


def trial_code(modality: str, method: str, root: Path = ROOT) -> CodeIdentity:
    """The code that trains a trial: the loop, what reads its data, its model, and the method's recipe alone."""
    module = METHODS[method].module if modality == "text" else method
    return code_identity([ENTRIES[modality], f"{RECIPES[modality]}.{module}:RECIPE"], CHOICES, root)


def code_key(code: CodeIdentity) -> str:
    """What a trial's settings hold of its code: the hash that stands for all code that was declared equal."""
    return read_equivalence().canonical(code.hash)


def keep_code(folder: Path, code: CodeIdentity, key: str) -> None:
    """Write a worker's own code into the trial's folder, before it trains.

    Args:
        key: what the trial's settings hold.

    Raises:
        ArtifactError: the worker has other code, so that its result would be kept under the wrong key.
    """
    if code_key(code) != key:
        raise ArtifactError(
            f"{folder}: the code that trains is not the code that the plan was made with ({code.hash} is not {key}): "
            "it was edited meanwhile, or this node has another copy; run `dvc repro` again"
        )
    write_code(folder, code)


def trial_kinds() -> dict[str, CodeIdentity]:
    """The code of every kind of trial that there is, by modality/method."""
    kinds = [("text", method) for method in METHODS] + [("image", method) for method in VISION_METHODS]
    return {f"{modality}/{method}": trial_code(modality, method) for modality, method in kinds}


if __name__ == "__main__":
    # `harmless` of a later commit runs this module of an earlier one: the form of what it prints stays.
    print(json.dumps({kind: code.definitions for kind, code in trial_kinds().items()}))
