"""Trains a small trial of every kind in this process and prints which functions of the project ran, as JSON.

A program of its own: `python -m tests.traced_trials` in a folder with prepared data; what is imported before would not
be imported again.
"""

import inspect
import json
import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pipeline.identity.imports import ROOT


def main() -> None:
    from pipeline.params import load_params
    from pipeline.training.groups import plan_of

    plan = plan_of(load_params())
    codes: dict[str, set[CodeType]] = defaultdict(set)
    keys: dict[str, str] = {}
    for group in plan.groups:
        point: dict[str, Any] = {"batch_size": 20, "learning_rate": 0.001, "seed": 1}
        if group.parent:
            point["parent"] = keys[group.parent]
        settings, kind = {**group.settings, **point}, f"{group.settings['modality']}/{group.settings['method']}"
        keys[group.name] = group.name.replace("/", "-")
        codes[kind] |= functions_of(settings, dict(group.names), Path("runs/trials") / keys[group.name])
    print(json.dumps({kind: sorted(set(map(place, ran))) for kind, ran in codes.items()}))


def functions_of(settings: dict[str, Any], names: dict[str, Any], folder: Path) -> set[CodeType]:
    """Code of every function of the project that runs while a trial trains."""
    from pipeline.training.trial import train

    ran: set[CodeType] = set()
    packages = (str(ROOT / "pipeline"), str(Path("pipeline").absolute()))

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        # The body of a module or a class, which runs at an import, is no function: it lacks the flag.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(packages):
            ran.add(code)

    context = {"threads": 1, "device": "cpu", "mirror": None, "micro_batch": {"text": None, "image": None}}
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        train(settings, names, folder, context, lambda row: None)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return ran


def place(code: CodeType) -> tuple[str, int]:
    """File below the root, and first line."""
    return Path(code.co_filename).resolve().relative_to(ROOT).as_posix(), code.co_firstlineno


if __name__ == "__main__":
    main()
