"""The device that computes."""

import os
import platform
import re
from pathlib import Path

from pipeline.errors import DataError


def device_of(setting: str) -> str:
    """The device of a setting; "auto" is the GPU where there is one.

    Raises:
        DataError: the setting is "cuda" and there is no GPU.
    """
    import torch

    if setting == "cuda" and not torch.cuda.is_available():
        raise DataError("runtime.device: 'cuda' and no GPU is visible; set it to auto or cpu")
    return setting if setting != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """This machine's processor, with the number of CPUs that this process may use."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {count} CPU{'s' * (count != 1)}"
