"""Which code trains a trial of a modality and a method; keys of trials, workers and `harmless` agree on it here."""

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
"""In a trial's folder: the code that trained it."""
ENTRY = "pipeline.training.trial:train"
"""The function that a worker calls."""
RECORDING = "pipeline.models.recording:record_trace"
"""The function that records a trace."""
STATED = ("pipeline.training.methods:load_recipe", "pipeline.models.names:BackboneSpec")
"""What settings state already: which recipe, which is a root of its own, and which backbone."""
BOOKKEEPING = ("pipeline.training.plan", "pipeline.results")
"""Which trials there are and how results are stored; changes no result, and yet stages have to run again for it."""
OTHERS: dict[Modality, tuple[str, ...]] = {
    "text": ("pipeline.models.residual", "pipeline.tasks.image"),
    "image": ("pipeline.models.encoders", "pipeline.tasks.text"),
}
"""What only the other modality runs."""


def trial_code(modality: Modality, method: str, root: Path = ROOT) -> CodeIdentity:
    """The code that trains a trial: the loop, what reads its data, its model, and the method's recipe alone."""
    recipe = f"pipeline.training.recipes.{method}:RECIPE"
    return code_identity([ENTRY, recipe], [*STATED, *BOOKKEEPING, *OTHERS[modality]], root)


def recording_code(modality: Modality) -> CodeIdentity:
    """The code that records a trace of a model, however it was trained."""
    return code_identity([RECORDING], [*STATED, *BOOKKEEPING, *OTHERS[modality]])


def code_kinds() -> dict[str, CodeIdentity]:
    """The code of every kind of trial that there is, by modality/method, and of recording, by modality."""
    kinds = {f"{m}/{name}": trial_code(m, name) for name, info in METHODS.items() for m in info.modalities}
    return kinds | {f"{modality}: traces": recording_code(modality) for modality in OTHERS}


def code_key(code: CodeIdentity) -> str:
    """What a key holds of the code: the hash that stands for all code that was declared equal."""
    return canonical(code.hash, read_equivalence())


def keep_code(folder: Path, names: Mapping[str, str | None], code: CodeIdentity, key: str) -> None:
    """Write a worker's own code into the trial's folder, before it trains.

    Args:
        names: of what the settings identify by content: task, backbone, hub.
        key: the code that the trial's settings hold.

    Raises:
        ArtifactError: the worker has other code, so that its result would lie under a wrong key.
    """
    if code_key(code) != key:
        raise ArtifactError(
            f"{folder}: the code that trains ({code_key(code)}) is not the code of the plan ({key}): it was edited "
            "meanwhile, or this node has another copy; run `dvc repro` again"
        )
    TrialCode(names=dict(names), code=code.hash, definitions=code.definitions).write(folder / FILE)


if __name__ == "__main__":
    # `harmless` of a later commit runs this module of an earlier one: the form of what it prints stays.
    print(json.dumps({kind: code.definitions for kind, code in code_kinds().items()}))
