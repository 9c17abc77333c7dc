"""Which code trains a trial of a modality and a method; `harmless` and the keys of trials agree on it here."""

import json
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.identity.code import CodeIdentity, code_identity, write_code
from pipeline.identity.equivalence import read_equivalence
from pipeline.identity.imports import ROOT
from pipeline.tasks.task import Modality
from pipeline.training.methods import METHODS

ENTRY = "pipeline.training.trial:train"
"""The function that a worker calls."""
STATED = ("pipeline.training.methods:load_recipe", "pipeline.models.names:BackboneSpec")
"""What a trial's settings state already: which recipe, which is a root of its own, and which backbone."""
OTHERS: dict[Modality, tuple[str, ...]] = {
    "text": (
        "pipeline.tasks.image.pixels:ImageStore",
        "pipeline.models.residual:ResNet",
        "pipeline.models.residual:resnet_from_description",
    ),
    "image": (
        "pipeline.tasks.text.tokens:TokenStore",
        "pipeline.models.encoders.encoder:build_encoder",
        "pipeline.models.encoders.encoder:encoder_from_description",
    ),
}
"""What only the other modality runs."""
RECORDING = "pipeline.models.recording:record_trace"
"""The function that records a trace."""


def trial_code(modality: Modality, method: str, root: Path = ROOT) -> CodeIdentity:
    """The code that trains a trial: the loop, what reads its data, its model, and the method's recipe alone."""
    recipe = f"pipeline.training.recipes.{METHODS[method].module}:RECIPE"
    return code_identity([ENTRY, recipe], [*STATED, *OTHERS[modality]], root)


def recording_code(modality: Modality, root: Path = ROOT) -> CodeIdentity:
    """The code that records a trace of a model, however it was trained."""
    return code_identity([RECORDING], [*STATED, *OTHERS[modality]], root)


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
    return {
        f"{modality}/{method}": trial_code(modality, method)
        for method, info in METHODS.items()
        for modality in info.modalities
    }


if __name__ == "__main__":
    # `harmless` of a later commit runs this module of an earlier one: the form of what it prints stays.
    print(json.dumps({kind: code.definitions for kind, code in trial_kinds().items()}))
