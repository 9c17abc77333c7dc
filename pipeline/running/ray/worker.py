"""What runs in a worker process before the project's own code does."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any


def load(runner: str, folder: str) -> Callable[..., Any]:
    """The function that "module:function" names, imported from the project's folder, which the process now works in."""
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module, _, name = runner.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
