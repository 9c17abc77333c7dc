"""The code that trains a trial of a modality and a method, as used by keys of trials, workers and `harmless`."""

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.identity.code import CodeIdentity, code_identity
from pipeline.identity.equivalence import canonical, read_equivalence
from pipeline.identity.imports import ROOT
from pipeline.results import TrialCode
from pipeline.tasks.task import Modality
from pipeline.training.methods import METHODS

FILE = "code.json"
"""File in a trial's folder with the code that trained it."""
ENTRY = "pipeline.training.trial:train"
"""The function that a worker calls."""
RECORDING = "pipeline.models.recording:record_traces"
"""The function that records the traces of a model."""
STATED = ("pipeline.training.methods:load_recipe", "pipeline.models.names:BackboneSpec")
"""Choices that a trial's settings already hold: the recipe, added as a root of its own, and the backbone."""
BOOKKEEPING = ("pipeline.training.plan", "pipeline.results")
"""Code that plans trials and stores results. It changes no result, but stages run again when it changes."""
OTHERS: dict[Modality, tuple[str, ...]] = {
    "text": ("pipeline.models.residual", "pipeline.tasks.image"),
    "image": ("pipeline.models.encoders", "pipeline.tasks.text"),
}
"""Modality to the code that only the other modality runs."""


def trial_code(modality: Modality, method: str, root: Path = ROOT) -> CodeIdentity:
    """The code that trains a trial: loop, data, model and the recipe of its method."""
    recipe = f"pipeline.training.recipes.{method}:RECIPE"
    return code_identity([ENTRY, recipe], [*STATED, *BOOKKEEPING, *OTHERS[modality]], root)


def recording_code(modality: Modality) -> CodeIdentity:
    """The code that records a trace of a model, however it was trained."""
    return code_identity([RECORDING], [*STATED, *BOOKKEEPING, *OTHERS[modality]])


def code_kinds() -> dict[str, CodeIdentity]:
    """The code of every kind of trial, by modality/method, and of recording, by modality."""
    kinds = {f"{m}/{name}": trial_code(m, name) for name, info in METHODS.items() for m in info.modalities}
    return kinds | {f"{modality}: traces": recording_code(modality) for modality in OTHERS}


def code_key(code: CodeIdentity) -> str:
    """The hash of code in keys: one hash stands for all code that was declared equal."""
    return canonical(code.hash, read_equivalence())


def keep_code(folder: Path, names: Mapping[str, str | None], code: CodeIdentity, key: str) -> None:
    """Write the worker's code into the trial's folder, before training.

    Args:
        names: names of the inputs that the settings identify by content: task, backbone, hub.
        key: hash of the code in the trial's settings.

    Raises:
        ArtifactError: the worker has other code, so its result would be stored under a wrong key.
    """
    if code_key(code) != key:
        raise ArtifactError(
            f"{folder}: the code that trains ({code_key(code)}) is not the code of the plan ({key}): it was edited "
            "since, or this node has another copy; run `dvc repro` again"
        )
    TrialCode(names=dict(names), code=code.hash, definitions=code.definitions).write(folder / FILE)


if __name__ == "__main__":
    # `harmless` of a later commit runs this module of an earlier one, so the format of the output must stay.
    print(json.dumps({kind: code.definitions for kind, code in code_kinds().items()}))
