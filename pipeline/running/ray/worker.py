"""What runs in a worker process before the project's own code does."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.running.shared_folder import Storage

SPARE = "run fewer side by side (runtime.workers), set training.micro_batch, or give it more memory"
"""Remedies of a trial that lacks memory."""


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


def forget_peak() -> None:
    """Measure the memory of the next trial in this process alone."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def gpu_gib() -> float | None:
    """Most GiB of a GPU that this process has had, CUDA's own among them; None without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    from pipeline.models.precision import CONTEXT_GIB

    return float(torch.cuda.max_memory_reserved() / 2**30 + CONTEXT_GIB)
