"""What runs in a worker process before the project's own code does."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.running.shared_folder import Storage


def enter(storage: Storage, project: str) -> Path:
    """Work in the project's folder, and import its code; or in one of the node's, with code that Ray brought."""
    folder = storage.workplace(Path(project))
    os.chdir(folder)
    if not storage.travels and project not in sys.path:
        sys.path.insert(0, project)
    return folder


def load(runner: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = runner.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
